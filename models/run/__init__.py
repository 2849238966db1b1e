"""A run ends in a result or in one sentence: errors, whole files, bounded reading, memory, threads, resume, record."""

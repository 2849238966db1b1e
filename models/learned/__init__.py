"""Other people's models behind three function types: tracker, depth model, mask model."""

"use strict";
// Input against reconstruction, and the videos below; the 3D canvas is in scene3d.js.
const data = JSON.parse(document.getElementById("data").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function compare() {
  const card = document.getElementById("compare");
  if (!card) return;
  const stage = card.querySelector(".stage"), divider = card.querySelector(".divider");
  const [input, rebuilt] = stage.querySelectorAll("video");
  const play = card.querySelector(".play"), slider = card.querySelector("[type=range]"), told = card.querySelector("output");
  const strip = card.querySelector(".strip"), { fps, psnr, held_out: heldOut } = data;
  const count = Number(slider.max) + 1;
  let wanted = false;

  const frame = () => Math.max(0, Math.min(count - 1, Math.floor(input.currentTime * fps + 0.01)));
  const both = [input, rebuilt];
  function seek(t) {
    return Promise.all(both.map((video) => new Promise((done) => {
      video.addEventListener("seeked", done, { once: true });
      video.currentTime = (t + 0.5) / fps;
    })));
  }

  function split(percent) {
    const value = Math.max(0, Math.min(100, percent));
    stage.style.setProperty("--split", value + "%");
    divider.setAttribute("aria-valuenow", Math.round(value));
  }
  function follow(event) {
    const box = stage.getBoundingClientRect();
    split(100 * (event.clientX - box.left) / box.width);
  }
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
  divider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (step) { split(Number(divider.getAttribute("aria-valuenow")) + step); event.preventDefault(); }
  });

  const bars = psnr.map((value, t) => {
    const bar = document.createElement("i"), [low, high] = [Math.min(...psnr), Math.max(...psnr)];
    bar.style.height = 20 + 80 * (value - low) / Math.max(high - low, 1e-6) + "%";
    bar.classList.toggle("held", heldOut.includes(t));
    strip.append(bar);
    return bar;
  });
  strip.hidden = bars.length === 0;
  strip.addEventListener("click", (event) => {
    const box = strip.firstChild.getBoundingClientRect(), end = strip.lastChild.getBoundingClientRect();
    seek(Math.max(0, Math.min(count - 1, Math.floor(count * (event.clientX - box.left) / (end.right - box.left)))));
  });

  function setPlaying(on) {
    wanted = on;
    play.classList.toggle("on", on);
    play.setAttribute("aria-label", on ? "Pause" : "Play");
    for (const video of both) on ? video.play().catch(() => {}) : video.pause();
  }
  let restarting = false;
  async function restart() {  // together: left to themselves, two loops part by the time of a seek
    if (restarting) return;
    restarting = true;
    for (const video of both) video.pause();
    await seek(0);
    restarting = false;
    if (wanted) setPlaying(true);
  }
  for (const video of both) video.addEventListener("ended", restart);
  play.addEventListener("click", () => setPlaying(!wanted));
  slider.addEventListener("input", () => { setPlaying(false); seek(Number(slider.value)); });

  let shown = -1;
  function tick() {
    // Two decoders drift: the rebuilt video runs a little faster or slower until it is with the input again.
    const ahead = rebuilt.currentTime - input.currentTime, seeking = restarting || rebuilt.seeking || input.seeking;
    if (!seeking && Math.abs(ahead) > 6 / fps) rebuilt.currentTime = input.currentTime;
    rebuilt.playbackRate = Math.max(0.7, Math.min(1.4, 1 - 4 * ahead));
    const t = frame();
    if (t !== shown) {
      if (bars[shown]) bars[shown].classList.remove("now");
      if (bars[t]) bars[t].classList.add("now");
      slider.value = shown = t;
      const score = psnr.length ? ` · ${psnr[t].toFixed(1)} dB${heldOut.includes(t) ? ", held out" : ""}` : "";
      told.textContent = `frame ${t + 1} of ${count}${score}`;
    }
    requestAnimationFrame(tick);
  }
  split(50);
  tick();
  whenSeen(card, (seen) => { if (!calm) setPlaying(seen); });
}

function whenSeen(element, act) {
  new IntersectionObserver((entries) => act(entries[entries.length - 1].isIntersecting), { threshold: 0.25 }).observe(element);
}

compare();
if (!calm) {
  for (const video of document.querySelectorAll(".grid video")) {
    let paused = false;  // by the viewer, who is not overruled
    video.addEventListener("pause", () => { paused = video.dataset.seen === "1"; });
    whenSeen(video, (seen) => {
      video.dataset.seen = seen ? "1" : "0";
      if (seen && !paused) video.play().catch(() => {});
      if (!seen) video.pause();
    });
  }
}

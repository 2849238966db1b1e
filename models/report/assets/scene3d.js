"use strict";
// The scene to turn with the mouse: surface (from the GLB), static points, input cameras and movers' tracks.
(function scene3d() {
  const host = document.getElementById("world");
  if (!host) return;
  const canvas = host.querySelector("canvas"), world = data.world, depth = world.depth;
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
  } catch (error) {
    host.querySelector(".hint").textContent = "This browser shows no 3D (WebGL is off).";
    return;
  }
  renderer.outputEncoding = THREE.sRGBEncoding;
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0x0c0f14);
  const camera = new THREE.PerspectiveCamera(45, 1, depth * 1e-3, depth * 1e3);
  const ours = new THREE.Group();  // world axes (y down) to three.js's (y up)
  ours.rotation.x = Math.PI;
  scene.add(ours);

  function bytes(text) {
    const decoded = atob(text), array = new Uint8Array(decoded.length);
    for (let i = 0; i < array.length; i++) array[i] = decoded.charCodeAt(i);
    return array;
  }
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const poses = floats(world.poses), count = poses.length / 16;
  const poseOf = (t) => new THREE.Matrix4().fromArray(poses, 16 * t);
  const linear = Array.from({ length: 256 }, (_, v) => new THREE.Color(v / 255, 0, 0).convertSRGBToLinear().r);

  function buffer(positions, colors) {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
    if (colors) geometry.setAttribute("color", new THREE.BufferAttribute(colors, 3));
    return geometry;
  }
  function disc() {
    const image = document.createElement("canvas");
    image.width = image.height = 32;
    const context = image.getContext("2d");
    context.fillStyle = "#fff";
    context.arc(16, 16, 15, 0, 7);
    context.fill();
    return new THREE.CanvasTexture(image);
  }
  const round = { map: disc(), alphaTest: 0.5, vertexColors: true };

  // Static points.
  const colors = Float32Array.from(bytes(world.rgb), (v) => linear[v]);
  const points = new THREE.Points(buffer(floats(world.points), colors), new THREE.PointsMaterial({ size: 0.026 * depth, ...round }));
  ours.add(points);

  // Input cameras: a frustum each, the path, and the one of the current frame.
  const reach = 0.055 * depth;
  function frustum(t) {
    const f = world.focal[t], [x, y] = [reach * world.width / 2 / f, reach * world.height / 2 / f];
    const corners = [[-x, y], [x, y], [x, -y], [-x, -y]].map(([u, v]) => [u, v, -reach]), eye = [0, 0, 0];
    const lines = corners.flatMap((corner, k) => [eye, corner, corner, corners[(k + 1) % 4]]);
    return lines.flatMap((p) => new THREE.Vector3(...p).applyMatrix4(poseOf(t)).toArray());
  }
  const line = (positions, color, kind = THREE.LineSegments) =>
    new kind(buffer(new Float32Array(positions)), new THREE.LineBasicMaterial({ color, transparent: true, opacity: 0.9 }));
  const step = Math.max(1, Math.round(count / 16)), centers = [], frusta = [];
  for (let t = 0; t < count; t++) {
    centers.push(...poses.slice(16 * t + 12, 16 * t + 15));
    if (t % step === 0) frusta.push(...frustum(t));
  }
  const cameras = new THREE.Group(), current = line(frustum(0), 0xff944d);
  cameras.add(line(frusta, 0x5b8def), line(centers, 0x8fb4ff, THREE.Line), current);
  ours.add(cameras);

  // Movers: where their tracks are now, and the way they came.
  const tracks = floats(world.movers), many = world.labels.length, tail = 10;
  const hues = world.labels.map((label) => new THREE.Color().setHSL((0.07 + 0.38 * (label - 1)) % 1, 0.95, 0.55));
  const dots = new THREE.Points(buffer(new Float32Array(3 * many), new Float32Array(3 * many)), new THREE.PointsMaterial({ size: 0.03 * depth, ...round }));
  const tails = new THREE.LineSegments(buffer(new Float32Array(6 * many * tail), new Float32Array(6 * many * tail)), new THREE.LineBasicMaterial({ vertexColors: true }));
  const movers = new THREE.Group();
  movers.add(dots, tails);
  dots.frustumCulled = tails.frustumCulled = false;
  ours.add(movers);
  function placeMovers(t) {
    const at = (s, k) => 3 * (s * many + k);
    let n = 0, m = 0;
    const write = (mesh, index, k, s) => {
      const place = at(s, k), bright = new THREE.Color(hues[k]).multiplyScalar(1 - (t - s) / tail);
      mesh.geometry.attributes.position.array.set(tracks.subarray(place, place + 3), 3 * index);
      bright.toArray(mesh.geometry.attributes.color.array, 3 * index);
    };
    for (let k = 0; k < many; k++) {
      if (Number.isFinite(tracks[at(t, k)])) write(dots, n++, k, t);
      for (let s = Math.max(1, t - tail + 1); s <= t; s++) {
        if (!Number.isFinite(tracks[at(s, k)]) || !Number.isFinite(tracks[at(s - 1, k)])) continue;
        write(tails, m++, k, s - 1);
        write(tails, m++, k, s);
      }
    }
    for (const [mesh, used] of [[dots, n], [tails, m]]) {
      mesh.geometry.setDrawRange(0, used);
      mesh.geometry.attributes.position.needsUpdate = mesh.geometry.attributes.color.needsUpdate = true;
    }
  }

  // View: a target, and a camera that turns about it.
  const target = new THREE.Vector3(), up = new THREE.Vector3();
  let time = 0, through = false, mixer = null, queued = false;
  const draw = () => { if (!queued && !renderer.xr.isPresenting) { queued = true; requestAnimationFrame(() => { queued = false; renderer.render(scene, camera); }); } };
  const inScene = (t) => new THREE.Matrix4().makeRotationX(Math.PI).multiply(poseOf(t));
  function fieldOfView() {
    const tangent = world.height / 2 / world.focal[through ? time : world.middle], shape = world.width / world.height;
    camera.fov = 2 * Math.atan(tangent * Math.max(1, shape / camera.aspect)) * 180 / Math.PI;
    camera.updateProjectionMatrix();
  }
  function look() { camera.up.copy(up); camera.lookAt(target); draw(); }
  function lookThrough(t) {
    inScene(t).decompose(camera.position, camera.quaternion, new THREE.Vector3());
    up.set(0, 1, 0).applyQuaternion(camera.quaternion);
    target.set(0, 0, -depth).applyQuaternion(camera.quaternion).add(camera.position);
    fieldOfView();
    draw();
  }
  function reset() {
    setThrough(false);
    lookThrough(world.middle);
    const back = new THREE.Vector3(0.22, 0.16, 0.42).multiplyScalar(depth).applyQuaternion(camera.quaternion);
    camera.position.add(back);
    look();
  }
  function turn(dx, dy) {
    const upright = new THREE.Quaternion().setFromUnitVectors(up, new THREE.Vector3(0, 1, 0));
    const offset = camera.position.clone().sub(target).applyQuaternion(upright);
    const ball = new THREE.Spherical().setFromVector3(offset);
    ball.theta -= dx;
    ball.phi = Math.max(0.05, Math.min(Math.PI - 0.05, ball.phi - dy));
    camera.position.setFromSpherical(ball).applyQuaternion(upright.invert()).add(target);
    look();
  }
  function zoom(factor) {
    const offset = camera.position.clone().sub(target);
    offset.setLength(Math.max(0.05 * depth, Math.min(30 * depth, offset.length() * factor)));
    camera.position.copy(target).add(offset);
    look();
  }
  function pan(dx, dy) {
    const size = camera.position.distanceTo(target) * Math.tan(camera.fov * Math.PI / 360) * 2 / canvas.clientHeight;
    const shift = new THREE.Vector3(-dx * size, dy * size, 0).applyQuaternion(camera.quaternion);
    camera.position.add(shift);
    target.add(shift);
    look();
  }

  // Mouse, fingers, keys.
  const held = new Map();
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    held.set(event.pointerId, [event.clientX, event.clientY]);
    setThrough(false);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    const last = held.get(event.pointerId);
    if (!last) return;
    const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]], speed = 4 / canvas.clientHeight;
    const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    const before = held.size === 2 ? spread() : 0;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 2) { zoom(before / Math.max(spread(), 1)); pan(dx / 2, dy / 2); }
    else if (event.buttons === 2 || event.shiftKey) pan(dx, dy);
    else turn(dx * speed, dy * speed);
  });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;  // until it is clicked, the page scrolls
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 1e-3));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = { ArrowLeft: () => turn(-0.08, 0), ArrowRight: () => turn(0.08, 0), ArrowUp: () => turn(0, -0.08),
      ArrowDown: () => turn(0, 0.08), "+": () => zoom(0.9), "-": () => zoom(1.1) }[event.key];
    if (act) { setThrough(false); act(); event.preventDefault(); }
  });

  // Time, and what is shown.
  const slider = host.querySelector("[type=range]"), told = host.querySelector("output"), play = host.querySelector(".play");
  const eye = host.querySelector("[name=through]"), shown = (name) => host.querySelector(`[name=${name}]`);
  function setThrough(on) { through = eye.checked = on; cameras.visible = shown("cameras").checked && !on; fieldOfView(); }
  function setTime(t) {
    time = t;
    slider.value = t;
    told.textContent = `frame ${t + 1} of ${count}`;
    current.geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(frustum(t)), 3));
    current.geometry.computeBoundingSphere();
    placeMovers(t);
    if (mixer) mixer.setTime(Math.min(t / world.fps, mixer.length - 1e-4));
    if (through) lookThrough(t);
    draw();
  }
  let timer = 0;
  function setPlaying(on) {
    clearInterval(timer);
    play.classList.toggle("on", on);
    timer = on ? setInterval(() => setTime((time + 1) % count), 1000 / Math.min(world.fps, 30)) : 0;
  }
  play.addEventListener("click", () => setPlaying(!timer));
  slider.addEventListener("input", () => { setPlaying(false); setTime(Number(slider.value)); });
  eye.addEventListener("change", () => { setThrough(eye.checked); if (through) lookThrough(time); draw(); });
  host.querySelector("[name=reset]").addEventListener("click", reset);
  for (const [name, object] of [["points", points], ["cameras", cameras], ["movers", movers]]) {
    const box = shown(name);
    if (!box) { object.visible = false; continue; }
    const set = () => { object.visible = box.checked && !(through && object === cameras); draw(); };
    box.addEventListener("change", set);
    set();
  }

  // The exported surface, where there is one.
  const glb = document.getElementById("glb").textContent.trim();
  if (glb) {
    new THREE.GLTFLoader().parse(bytes(glb).buffer, "", (gltf) => {
      gltf.scene.traverse((node) => {  // colours are as filmed: no light may change them
        const old = node.material;
        if (!old || !node.isMesh) return;
        node.material = new THREE.MeshBasicMaterial({ map: old.map, color: old.map ? 0xffffff : old.color, vertexColors: old.vertexColors,
          transparent: old.transparent, alphaTest: old.alphaTest, side: THREE.DoubleSide });
        node.frustumCulled = false;
      });
      scene.add(gltf.scene);
      if (gltf.animations.length) {
        mixer = new THREE.AnimationMixer(gltf.scene);
        mixer.length = Math.max(...gltf.animations.map((clip) => clip.duration));
        for (const clip of gltf.animations) mixer.clipAction(clip).play();
        setTime(time);
      }
      shown("surface").addEventListener("change", (event) => { gltf.scene.visible = event.target.checked; draw(); });
      host.dataset.surface = "shown";
      draw();
    }, (error) => { host.querySelector(".hint").textContent = "scene.glb cannot be shown: " + error.message; });
  }

  // A headset: the viewer stands where the middle camera filmed. The trigger stops and starts time.
  const headset = shown("headset"), rig = new THREE.Group(), metres = 3;  // how far away the scene is, typically
  scene.add(rig);
  function standBy(found) {
    headset.disabled = !found;
    headset.textContent = found ? "View in headset" : "No headset here";
  }
  function enter(session) {
    setThrough(false);
    lookThrough(world.middle);
    cameras.visible = false;
    rig.position.copy(camera.position);
    rig.quaternion.copy(camera.quaternion);
    rig.scale.setScalar(depth / metres);
    rig.add(camera);
    [camera.near, camera.far] = [0.05, 1000];
    renderer.xr.enabled = true;
    renderer.xr.setReferenceSpaceType("local");
    session.addEventListener("select", () => setPlaying(!timer));
    renderer.xr.addEventListener("sessionend", leave);
    renderer.setAnimationLoop(() => renderer.render(scene, camera));
    setPlaying(true);
    return renderer.xr.setSession(session).catch((error) => { session.end(); throw error; });
  }
  function leave() {
    renderer.xr.removeEventListener("sessionend", leave);
    renderer.setAnimationLoop(null);
    renderer.xr.enabled = false;
    rig.remove(camera);
    [camera.near, camera.far] = [depth * 1e-3, depth * 1e3];
    setPlaying(false);
    resize();
    reset();
  }
  const xr = navigator.xr;
  if (xr) xr.isSessionSupported("immersive-vr").then(standBy, () => standBy(false));
  else standBy(false);
  headset.addEventListener("click", () => {
    xr.requestSession("immersive-vr").then(enter).catch((error) => { headset.textContent = "The headset did not start: " + error.message; });
  });

  function resize() {
    const { clientWidth: w, clientHeight: h } = canvas;
    renderer.setSize(w, h, false);
    camera.aspect = w / Math.max(h, 1);
    fieldOfView();
    draw();
  }
  new ResizeObserver(resize).observe(canvas);
  resize();
  setTime(world.middle);
  reset();
  host.dataset.ready = "yes";
})();

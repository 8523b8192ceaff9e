"use strict";
// Draws skinned parts with WebGL 2. Cameras are OpenCV's (x right, y down, z forward); matrices are
// rows in arrays of 12 or 16 numbers, turned to columns only where WebGL takes them.
const scene = JSON.parse(document.getElementById("scene").textContent);
const find = (id) => document.getElementById(id);
const canvas = find("canvas");
const gl = canvas.getContext("webgl2", { alpha: true, premultipliedAlpha: true, preserveDrawingBuffer: true });
const NEAR = 0.02, FAR = 50; // meters
const wished = new URLSearchParams(location.hash.slice(1));

function decode(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

const VERTEX = `#version 300 es
in vec3 place; in vec3 normal; in vec3 color; in float heat; in vec4 joints; in vec4 weights;
uniform mat4 moves[64]; uniform mat4 camera; uniform mat4 lens; uniform vec3 plain; uniform int mode;
out vec3 shade; out vec3 facing; out vec3 from;
vec3 hot(float t) {
  return clamp(vec3(1.5) - abs(4.0 * t - vec3(3.0, 2.0, 1.0)), 0.0, 1.0);
}
void main() {
  mat4 move = weights.x * moves[int(joints.x)] + weights.y * moves[int(joints.y)]
            + weights.z * moves[int(joints.z)] + weights.w * moves[int(joints.w)];
  vec4 seen = camera * (move * vec4(place, 1.0));
  facing = mat3(camera) * (mat3(move) * normal);
  from = seen.xyz;
  shade = mode == 0 ? color : mode == 1 ? (heat > 0.0 ? hot(0.25 + 0.6 * heat) : vec3(0.55)) : plain;
  gl_Position = lens * seen;
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 shade; in vec3 facing; in vec3 from; uniform float opacity; out vec4 pixel;
void main() {
  float light = abs(dot(normalize(facing), normalize(from)));
  pixel = vec4(shade * (0.35 + 0.65 * light), 1.0) * opacity;
}`;

function program() {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function attribute(made, name, values, size, normalized) {
  const at = gl.getAttribLocation(made, name);
  if (at < 0) return;
  const kind = values instanceof Float32Array ? gl.FLOAT : values instanceof Int8Array ? gl.BYTE : gl.UNSIGNED_BYTE;
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(at);
  gl.vertexAttribPointer(at, size, kind, normalized, 0, 0);
}

function upload(made, part) {
  part.array = gl.createVertexArray();
  gl.bindVertexArray(part.array);
  attribute(made, "place", decode(part.places, Float32Array), 3, false);
  attribute(made, "normal", decode(part.normals, Int8Array), 3, true);
  attribute(made, "color", decode(part.colors, Uint8Array), 3, true);
  attribute(made, "heat", decode(part.heat, Uint8Array), 1, true);
  if (part.joints) {
    attribute(made, "joints", decode(part.joints, Uint8Array), 4, false);
    attribute(made, "weights", decode(part.weights, Float32Array), 4, false);
  } else {
    gl.vertexAttrib4f(gl.getAttribLocation(made, "joints"), 0, 0, 0, 0);
    gl.vertexAttrib4f(gl.getAttribLocation(made, "weights"), 1, 0, 0, 0);
  }
  const corners = decode(part.faces, Uint32Array);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
  part.corners = corners.length;
  part.moves = decode(part.transforms, Float32Array);
  part.count = part.moves.length / (12 * scene.frames);
  part.shown = true;
}

const subtract = (a, b) => a.map((x, i) => x - b[i]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const unit = (a) => a.map((x) => x / (Math.hypot(...a) || 1));

// World -> camera, 12 numbers in rows, of an eye that looks at a place.
function lookAt(eye, at, down) {
  const forward = unit(subtract(at, eye)), right = unit(cross(down, forward)), own = cross(forward, right);
  return [right, own, forward].flatMap((axis) => [...axis, -dot(axis, eye)]);
}

// A pinhole camera as the matrix that WebGL clips by; pixel centers are whole numbers.
function lens(fx, fy, cx, cy, skew, width, height) {
  const sum = (FAR + NEAR) / (FAR - NEAR), product = (-2 * FAR * NEAR) / (FAR - NEAR);
  return [
    (2 * fx) / width, (2 * skew) / width, (2 * (cx + 0.5)) / width - 1, 0,
    0, (-2 * fy) / height, 1 - (2 * (cy + 0.5)) / height, 0,
    0, 0, sum, product,
    0, 0, 1, 0,
  ];
}

const columns = (rows) => {
  const full = rows.length === 12 ? [...rows, 0, 0, 0, 1] : rows;
  return Float32Array.from({ length: 16 }, (_, i) => full[4 * (i % 4) + (i >> 2)]);
};

const state = { frame: 0, view: "orbit", mode: 0, opacity: 0.8, yaw: 0.5, pitch: 0.3, away: 1, at: [...scene.center] };

function orbitCamera() {
  const [right, down, forward] = [0, 4, 8].map((i) => scene.cameras[0].slice(i, i + 3));
  const reach = scene.radius * 3.0 * state.away;
  const [cy, sy, cp, sp] = [Math.cos(state.yaw), Math.sin(state.yaw), Math.cos(state.pitch), Math.sin(state.pitch)];
  const eye = state.at.map((x, i) => x + reach * (sy * cp * right[i] - sp * down[i] - cy * cp * forward[i]));
  return lookAt(eye, state.at, down);
}

function draw() {
  const ratio = wished.has("bare") ? 1 : window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const through = state.view === "camera", [rows, lines] = scene.size;
  let camera, matrix, box = [0, 0, width, height];
  if (through) {
    const scale = Math.min(width / lines, height / rows);
    const [w, h] = [lines * scale, rows * scale].map(Math.round);
    box = [Math.round((width - w) / 2), Math.round((height - h) / 2), w, h];
    camera = scene.cameras[state.frame];
    matrix = lens(...scene.lenses[state.frame], lines, rows);
  } else {
    const focal = 1.2 * Math.max(height, 1);
    camera = orbitCamera();
    matrix = lens(focal, focal, width / 2 - 0.5, height / 2 - 0.5, 0, width, height);
  }
  gl.viewport(0, 0, width, height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.viewport(...box);
  gl.enable(gl.DEPTH_TEST);
  gl.useProgram(made);
  const set = (name) => gl.getUniformLocation(made, name);
  gl.uniformMatrix4fv(set("camera"), false, columns(camera));
  gl.uniformMatrix4fv(set("lens"), false, columns(matrix));
  gl.uniform1i(set("mode"), state.mode);
  gl.uniform1f(set("opacity"), through ? state.opacity : 1);
  for (const part of scene.parts) {
    if (!part.shown || !part.valid[state.frame]) continue;
    const moves = new Float32Array(16 * part.count);
    for (let joint = 0; joint < part.count; joint++) {
      const from = 12 * (state.frame * part.count + joint);
      moves.set(columns([...part.moves.subarray(from, from + 12)]), 16 * joint);
    }
    gl.uniformMatrix4fv(set("moves"), false, moves);
    gl.uniform3fv(set("plain"), part.plain);
    gl.bindVertexArray(part.array);
    gl.drawElements(gl.TRIANGLES, part.corners, gl.UNSIGNED_INT, 0);
  }
  const image = scene.images[state.frame];
  if (image && !wished.has("bare")) find("input").src = find("behind").src = "data:image/jpeg;base64," + image;
  find("input").hidden = !image;
  find("behind").style.visibility = through && image && !wished.has("bare") ? "visible" : "hidden";
  find("frame").value = state.frame;
  find("count").textContent = `${state.frame + 1} / ${scene.frames}`;
  document.body.dataset.drawn = state.frame;
  document.body.dataset.error = gl.getError();
}

let asked = false;
function redraw() {
  if (!asked) requestAnimationFrame(() => { asked = false; draw(); });
  asked = true;
}

function listen() {
  let playing = 0, held = null;
  const go = (frame) => { state.frame = (frame + scene.frames) % scene.frames; redraw(); };
  const play = () => {
    if (playing) { clearInterval(playing); playing = 0; } else playing = setInterval(() => go(state.frame + 1), 1000 / scene.rate);
    find("play").textContent = playing ? "Stop" : "Play";
  };
  find("play").onclick = play;
  find("frame").max = scene.frames - 1;
  find("frame").oninput = (event) => go(Number(event.target.value));
  find("opacity").oninput = (event) => { state.opacity = Number(event.target.value); redraw(); };
  document.querySelectorAll("input[name=view]").forEach((box) => { box.onchange = () => { state.view = box.value; redraw(); }; });
  document.querySelectorAll("input[name=color]").forEach((box) => { box.onchange = () => { state.mode = Number(box.value); redraw(); }; });
  for (const part of scene.parts) {
    const label = document.createElement("label"), box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true, onchange: () => { part.shown = box.checked; redraw(); } });
    label.append(box, " " + part.name);
    find("parts").append(label);
  }
  canvas.onpointerdown = (event) => { held = [event.clientX, event.clientY, event.button]; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointerup = () => { held = null; };
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onpointermove = (event) => {
    if (!held || state.view !== "orbit") return;
    const [x, y] = [event.clientX - held[0], event.clientY - held[1]];
    held = [event.clientX, event.clientY, held[2]];
    if (held[2] === 0 && !event.shiftKey) {
      state.yaw -= x * 0.008;
      state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch + y * 0.008));
    } else {
      const camera = orbitCamera(), step = (scene.radius * 3.0 * state.away) / (1.2 * canvas.clientHeight);
      state.at = state.at.map((a, i) => a - step * (x * camera[i] + y * camera[4 + i]));
    }
    redraw();
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    state.away = Math.max(0.1, Math.min(10, state.away * Math.exp(event.deltaY * 0.001)));
    redraw();
  }, { passive: false });
  window.onresize = redraw;
  window.onkeydown = (event) => {
    if (event.target.tagName === "INPUT" && event.target.type === "range") return;
    if (event.key === "ArrowRight") go(state.frame + 1);
    if (event.key === "ArrowLeft") go(state.frame - 1);
    if (event.key === " ") { event.preventDefault(); play(); }
  };
}

let made = null;
if (!gl) {
  find("note").textContent = "This browser has no WebGL 2, which the page draws with; switch hardware acceleration on.";
  document.body.dataset.error = "no WebGL 2";
} else {
  made = program();
  scene.parts.forEach((part) => upload(made, part));
  if (wished.has("bare")) document.body.classList.add("bare");
  if (wished.has("frame")) state.frame = Math.min(scene.frames - 1, Math.max(0, Number(wished.get("frame")) || 0));
  if (wished.has("color")) state.mode = Number(wished.get("color")) || 0;
  if (wished.get("view") === "camera") {
    state.view = "camera";
    document.querySelector("input[value=camera]").checked = true;
  }
  listen();
  draw();
}

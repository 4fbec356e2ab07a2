// Foveal Studio: the image on one side, models and their explanations on the other.

import { models } from "./api.js";
import { Pad } from "./drawing.js";
import { glance } from "./glance.js";
import { Panel } from "./panel.js";
import * as sources from "./sources.js";
import { text } from "./words.js";

const MOST = 2; // maximum number of panels

const find = (id) => document.getElementById(id);
const say = (words) => text(find("notice"), words);
const panels = [];
const watch = glance(find("glance"), panels);
const images = { draw: null, photo: null, camera: null, samples: null };
let known = [];
let count = 0;

const source = () => document.querySelector("input[name=source]:checked").value;

function give(kind, image, time) {
  image.number = ++count;
  image.digit = kind === "draw" || kind === "samples";
  images[kind] = image;
  if (kind === source()) show(image, time);
}

function show(image, time) {
  for (const panel of panels) {
    const name = suited(image);
    if (panels.length > 1 || panel.chosen || panel.model.model === name) panel.explain(image, time);
    else panel.suit(name, image);
  }
}

// Until the user chooses a model, photographs go to the first that keeps their proportions.
function suited(image) {
  const photos = image.digit ? undefined : known.find((one) => one.short_side_px);
  return (photos ?? known[0]).model;
}

function panelCount() {
  for (const panel of panels) panel.find(".remove").hidden = panels.length === 1;
  find("compare").hidden = panels.length >= Math.min(MOST, known.length);
  find("panels").className = panels.length > 1 ? "several" : "";
  watch(panels[0]);
}

// The server lists the models in display order.
function add() {
  const taken = panels.map((panel) => panel.model.model);
  const name = known.map((one) => one.model).find((name) => !taken.includes(name));
  const panel = new Panel(known, name, remove);
  panels.push(panel);
  find("panels").append(panel.root);
  panelCount();
  panel.explain(images[source()]);
  return panel;
}

function remove(panel) {
  panels.splice(panels.indexOf(panel), 1);
  panel.root.remove();
  panelCount();
  find("compare").focus();
}

function chosen() {
  const kind = source();
  for (const name of Object.keys(images)) find(`pane-${name}`).hidden = name !== kind;
  document.dispatchEvent(new CustomEvent("foveal:source", { detail: kind }));
  say("");
  if (kind === "samples") {
    sources.showSamples((image) => give("samples", image)).catch((error) => say(error.message));
  }
  if (images[kind]) show(images[kind]);
}

function choose(kind) {
  document.querySelector(`input[name=source][value=${kind}]`).checked = true;
  chosen();
}

function draw() {
  let pending = 0;
  const pad = new Pad(find("pad"), async (time) => {
    if (pad.empty) return;
    find("pad").dataset.pending = ++pending;
    give("draw", await pad.image(), time);
    if (!--pending) delete find("pad").dataset.pending;
  });
  find("undo").addEventListener("click", () => pad.undo());
  find("clear").addEventListener("click", () => {
    pad.clear();
    find("pad").focus();
  });
  find("centre").addEventListener("change", (event) => pad.centre(event.target.checked));
  pad.tell(performance.now());
}

async function start() {
  try {
    known = await models();
  } catch (error) {
    return say(error.message);
  }
  add();
  draw();
  for (const radio of document.querySelectorAll("input[name=source]")) {
    radio.addEventListener("change", chosen);
  }
  const photo = (image) => {
    give(image.name === "camera.png" ? "camera" : "photo", image);
    if (image.name !== "camera.png" && source() !== "photo") choose("photo");
  };
  sources.listen(photo, say);
  find("compare").addEventListener("click", () => add().find(".model").focus());
  document.documentElement.dataset.ready = "true";
}

start();

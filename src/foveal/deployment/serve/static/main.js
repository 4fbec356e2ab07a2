// Foveal Studio: the image on one side, models and their explanations on the other.

import { models } from "./api.js";
import { Pad } from "./drawing.js";
import { glance } from "./glance.js";
import { Panel } from "./panel.js";
import * as sources from "./sources.js";
import { setText } from "./words.js";

const MAX_PANELS = 2;

const find = (id) => document.getElementById(id);
const say = (message) => setText(find("notice"), message);
const panels = [];
const watchPanel = glance(find("glance"), panels);
const images = { draw: null, photo: null, camera: null, samples: null }; // the latest of each source
let modelList = [];
let imageCount = 0;

const selectedSource = () => document.querySelector("input[name=source]:checked").value;

// Numbers a new image {blob, name} of a source, and shows it if the source is selected. `time` is
// that of the event that changed the image, for measuring the latency.
function setImage(kind, image, time) {
  image.number = ++imageCount;
  image.digit = kind === "draw" || kind === "samples";
  images[kind] = image;
  if (kind === selectedSource()) show(image, time);
}

function show(image, time) {
  for (const panel of panels) {
    const name = defaultModel(image);
    if (panels.length > 1 || panel.hasChosenModel || panel.model.model === name) panel.explain(image, time);
    else panel.switchModel(name, image);
  }
}

// Until the user chooses a model, photographs are explained by the model with the most classes among
// those that keep their aspect ratio.
function defaultModel(image) {
  const photoModels = image.digit ? [] : modelList.filter((model) => model.short_side_px);
  photoModels.sort((one, other) => other.classes.length - one.classes.length);
  return (photoModels[0] ?? modelList[0]).model;
}

function updatePanelCount() {
  for (const panel of panels) panel.find(".remove").hidden = panels.length === 1;
  find("compare").hidden = panels.length >= Math.min(MAX_PANELS, modelList.length);
  find("panels").className = panels.length > 1 ? "several" : "";
  watchPanel(panels[0]);
}

// Adds a panel with the first model that has no panel yet; the server lists the models in order.
function addPanel() {
  const used = panels.map((panel) => panel.model.model);
  const name = modelList.map((model) => model.model).find((name) => !used.includes(name));
  const panel = new Panel(modelList, name, removePanel);
  panels.push(panel);
  find("panels").append(panel.root);
  updatePanelCount();
  panel.explain(images[selectedSource()]);
  return panel;
}

function removePanel(panel) {
  panels.splice(panels.indexOf(panel), 1);
  panel.root.remove();
  updatePanelCount();
  find("compare").focus();
}

function onSourceChange() {
  const kind = selectedSource();
  for (const name of Object.keys(images)) find(`pane-${name}`).hidden = name !== kind;
  document.dispatchEvent(new CustomEvent("foveal:source", { detail: kind }));
  say("");
  if (kind === "samples") {
    sources.showSamples((image) => setImage("samples", image)).catch((error) => say(error.message));
  }
  if (images[kind]) show(images[kind]);
}

function chooseSource(kind) {
  document.querySelector(`input[name=source][value=${kind}]`).checked = true;
  onSourceChange();
}

function startPad() {
  let pending = 0;
  const pad = new Pad(find("pad"), async (time) => {
    if (pad.empty) return;
    find("pad").dataset.pending = ++pending;
    setImage("draw", await pad.image(), time);
    if (!--pending) delete find("pad").dataset.pending;
  });
  find("undo").addEventListener("click", () => pad.undo());
  find("clear").addEventListener("click", () => {
    pad.clear();
    find("pad").focus();
  });
  find("centre").addEventListener("change", (event) => pad.setCentred(event.target.checked));
  pad.notify(performance.now());
}

async function start() {
  try {
    modelList = await models();
  } catch (error) {
    return say(error.message);
  }
  addPanel();
  startPad();
  for (const radio of document.querySelectorAll("input[name=source]")) {
    radio.addEventListener("change", onSourceChange);
  }
  const onImage = (image) => {
    setImage(image.name === "camera.png" ? "camera" : "photo", image);
    if (image.name !== "camera.png" && selectedSource() !== "photo") chooseSource("photo");
  };
  sources.listen(onImage, say);
  find("compare").addEventListener("click", () => addPanel().find(".model").focus());
  document.documentElement.dataset.ready = "true";
}

start();

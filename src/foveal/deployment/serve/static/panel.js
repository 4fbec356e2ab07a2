// Panel of one model: its explanation of the image, and its prediction.

import { explain as request } from "./api.js";
import { saveJson, savePng, saveSvg } from "./download.js";
import * as heat from "./heat.js";
import * as marks from "./marks.js";
import { original } from "./original.js";
import { captionedImage, loadImage, meanMap, numberedPatch } from "./parts.js";
import { fillCard, percent, printable, setText, showBars, showPrediction } from "./words.js";

const METHODS = { model: "the model itself", contributions: "exact contributions" };

export class Panel {
  // `models` as listed by GET /v1/models; `onRemove(panel)` is called to remove it.
  constructor(models, name, onRemove) {
    this.models = models;
    this.root = document.getElementById("panel").content.cloneNode(true).querySelector(".panel");
    this.image = null;
    this.held = null; // keypoints that the user has moved, or null
    this.response = null;
    this.running = false;
    this.pending = false; // whether to explain again after the running request
    this.hasChosenModel = false; // whether the user has chosen the model
    this.fillModels(name);
    this.listen(onRemove);
    this.choose(name);
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  fillModels(name) {
    const groups = Map.groupBy
      ? Map.groupBy(this.models, (model) => model.trained_on ?? "other")
      : this.models.reduce((map, model) => {
          const key = model.trained_on ?? "other";
          return map.set(key, [...(map.get(key) ?? []), model]);
        }, new Map());
    for (const [data, models] of groups) {
      const group = document.createElement("optgroup");
      group.label = printable(`trained on ${data}`);
      group.append(...models.map((model) =>
        new Option(printable(model.model), model.model, false, model.model === name)));
      this.find(".model").append(group);
    }
  }

  listen(onRemove) {
    this.find(".model").addEventListener("change", (event) => {
      this.hasChosenModel = true;
      this.choose(event.target.value);
    });
    this.find(".method").addEventListener("change", () => this.explain(this.image));
    this.find(".fraction select").addEventListener("change", () => this.explain(this.image));
    this.find(".release").addEventListener("click", () => this.hold(null));
    this.find(".remove").addEventListener("click", () => onRemove(this));
    this.find(".post-hoc").addEventListener("toggle", () => this.showPostHocMethods());
    for (const button of this.root.querySelectorAll(".downloads button")) {
      button.addEventListener("click", () => this.download(button.dataset.kind));
    }
  }

  choose(name) {
    this.model = this.models.find((model) => model.model === name);
    this.root.setAttribute("aria-label", name);
    const method = this.find(".method");
    method.replaceChildren(
      ...this.model.methods.map((name) => new Option(METHODS[name] ?? `post-hoc: ${name}`, name)));
    method.value = this.model.default_method;
    this.find(".post-hoc").hidden = this.model.methods.length < 2;
    setText(this.find(".about"), this.model.about);
    fillCard(this.find(".card"), this.find(".honesty dl"), this.model);
    this.explain(this.image);
  }

  // Explain an image with another model.
  switchModel(name, image) {
    this.image = image;
    this.find(".model").value = name;
    this.choose(name);
  }

  get method() {
    return this.find(".method").value;
  }

  hold(keypoints, time) {
    this.held = keypoints;
    this.explain(this.image, time, true);
  }

  // Explain an image. Of several that arrive while one is being explained, only the latest is explained.
  async explain(image, time = performance.now(), keepKeypoints = false) {
    this.image = image;
    if (!keepKeypoints) this.held = null;
    if (!image) return;
    this.time = time;
    this.pending = true;
    if (this.running) return;
    this.running = true;
    this.root.setAttribute("aria-busy", "true");
    while (this.pending) {
      this.pending = false;
      await this.explainOnce(this.time);
    }
    this.running = false;
    this.root.removeAttribute("aria-busy");
  }

  async explainOnce(time) {
    const held = this.held;
    const options = {
      model: this.model.model, method: this.method, top: 10, fit: "crop",
      show: "pictures,maps,evidence", fraction: this.find(".fraction select").value,
      keypoints: held && JSON.stringify(held.map((keypoint) => [keypoint.x, keypoint.y])),
      scales: held && JSON.stringify(held.map((keypoint) => keypoint.scale)),
    };
    const { image, model } = this;
    try {
      const response = await request(image, options);
      if (model !== this.model) return;
      this.warn("");
      await this.show(response, held, image);
      const detail = { stroke: time, model: model.model };
      requestAnimationFrame(() =>
        this.root.dispatchEvent(new CustomEvent("foveal:shown", { bubbles: true, detail })));
    } catch (error) {
      if (error.busy) {
        await new Promise((resolve) => setTimeout(resolve, 400));
        this.pending = true;
      } else {
        this.warn(error.message);
      }
    }
  }

  warn(message) {
    setText(this.find(".warning"), message);
  }

  async show(response, held, image) {
    const ownResponse = held ? this.ownResponse : response;
    this.response = response;
    this.ownResponse = ownResponse;
    await this.showImage(response, image);
    showPrediction(this.root, response, this.model, held ? ownResponse : null);
    showBars(this.find(".bars"), response.probabilities ?? []);
    this.showParts(response);
    this.showEvidence(response.evidence);
    this.find(".release").hidden = !held;
    if (this.find(".post-hoc").open) this.showPostHocMethods();
  }

  async showImage(response, image) {
    const size = response.size_px;
    this.input = await loadImage(response.pictures.image); // the model's input
    const canvas = await original(image, size, Boolean(this.model.size_px));
    const background = canvas ?? this.input;
    let href = canvas ? canvas.toDataURL("image/jpeg", 0.92) : response.pictures.image;
    let legend = "";
    const hasAttention = Boolean(response.maps) && !response.values.signed; // else attributions
    if (hasAttention) {
      this.attention = heat.relative(response.maps);
      this.scaleEnd = heat.scaleEnd([...this.attention.maps, this.attention.mean]);
      href = heat.attention(this.attention.mean, this.scaleEnd, background);
      legend = `0.1 × … ${this.scaleEnd.toFixed(0)} × uniform attention`;
    } else if (response.maps) {
      href = heat.attribution(meanMap(response.maps), background, response.values.zero);
      legend = "against … for the predicted class";
    }
    const smooth = Boolean(canvas) || hasAttention;
    const svg = marks.image(href, size, canvas ?? size, smooth);
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", `What ${this.model.model} looked at`);
    if (response.keypoints) this.showKeypoints(svg, response, size);
    else if (hasAttention) marks.peaks(svg, response.attention, size);
    this.replaceImage(svg);
    const label = this.find(".legend");
    setText(label, legend);
    label.className = `legend ${response.values?.signed ? "signed" : "magma"}`;
    setText(this.find(".hint"), [this.unfamiliarImageNote(), this.hint(response)].filter(Boolean).join(" "));
  }

  // Replace the image and keep the keyboard focus; wait while the user drags a keypoint.
  replaceImage(svg) {
    this.svg = svg;
    const holder = this.find(".shown-image");
    if (this.dragging) return;
    const focused = holder.contains(document.activeElement)
      ? document.activeElement.dataset.index : undefined;
    holder.replaceChildren(svg);
    if (focused !== undefined) holder.querySelector(`[data-index="${focused}"]`)?.focus();
  }

  // Note for an image unlike the training images, for which the model predicts a class all the same.
  unfamiliarImageNote() {
    const trainedOn = this.model.trained_on;
    if (!this.image.digit || !trainedOn || /^(cluttered-|planted-)?mnist/.test(trainedOn)) return "";
    return `This model was trained on ${trainedOn} and not on digits, so its prediction means little.`;
  }

  hint(response) {
    if (response.keypoints && this.model.holds_keypoints) {
      return "Drag a keypoint, or focus it and press the arrow keys: the model predicts from the new position.";
    }
    if (response.keypoints) return "";
    if (!response.maps) return "This model sees the whole image.";
    if (!response.values.signed) return "The numbers mark the maximum of each depth's attention.";
    if (!response.values.location_label) return "";
    const contributions = heat.collapseBlocks(response.maps[0]);
    const locations = `${contributions.length} × ${contributions[0].length} locations`;
    return `Contribution of each of ${locations} to the logit of the predicted class.`;
  }

  showKeypoints(svg, response, size) {
    const groups = marks.keypoints(svg, response.keypoints, response.patch_size_px, size);
    if (!this.model.holds_keypoints) return;
    groups.forEach((group, index) => this.makeDraggable(group, index, response, size));
  }

  makeDraggable(group, index, response, size) {
    const point = response.keypoints[index];
    group.setAttribute("tabindex", "0");
    group.setAttribute("role", "button");
    group.setAttribute("aria-label",
      `Keypoint ${index + 1}, column ${Math.round(point.x_px)}, row ${Math.round(point.y_px)}; ` +
      "use the arrow keys to move it, Escape to reset all keypoints");
    group.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.key === "Escape") this.hold(null);
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [dx, dy] = steps[event.key];
      // Relative to the moved keypoint, because the response to the last key may not have arrived.
      const current = (this.held ?? this.response.keypoints)[index];
      this.move(index, current.x_px + dx, current.y_px + dy, size, event.timeStamp);
    });
    group.addEventListener("pointerdown", (event) => this.drag(event, group, index, point, size));
  }

  drag(event, group, index, point, size) {
    event.preventDefault();
    group.focus({ preventScroll: true });
    group.setPointerCapture(event.pointerId);
    this.dragging = true;
    const svg = group.ownerSVGElement;
    const position = (moveEvent) => {
      const box = svg.getBoundingClientRect();
      return [((moveEvent.clientX - box.left) / box.width) * size.width - 0.5,
        ((moveEvent.clientY - box.top) / box.height) * size.height - 0.5];
    };
    const [startX, startY] = position(event);
    const offset = [point.x_px - startX, point.y_px - startY];
    const onMove = (moveEvent) => {
      const [x, y] = position(moveEvent).map((value, axis) => value + offset[axis]);
      const target = this.move(index, x, y, size, moveEvent.timeStamp);
      group.setAttribute("transform", `translate(${target.x_px - point.x_px} ${target.y_px - point.y_px})`);
    };
    const onEnd = () => {
      this.dragging = false;
      group.removeEventListener("pointermove", onMove);
      this.replaceImage(this.svg);
      this.find(`.shown-image [data-index="${index}"]`)?.focus({ preventScroll: true });
    };
    group.addEventListener("pointermove", onMove);
    group.addEventListener("pointerup", onEnd, { once: true });
    group.addEventListener("pointercancel", onEnd, { once: true });
  }

  move(index, x, y, size, time) {
    const x_px = Math.min(size.width - 1, Math.max(0, x));
    const y_px = Math.min(size.height - 1, Math.max(0, y));
    const target = {
      x_px, y_px, x: (2 * x_px + 1) / size.width - 1, y: (2 * y_px + 1) / size.height - 1,
      scale: this.response.keypoints[index].scale,
    };
    const held = (this.held ?? this.response.keypoints).map((keypoint, i) => (i === index ? target : keypoint));
    this.hold(held, time);
    return target;
  }

  showParts(response) {
    const parts = this.find(".parts");
    const title = this.find(".parts-title");
    const { patches, thumbnail, rebuilt } = response.pictures;
    parts.replaceChildren();
    title.textContent = "";
    if (patches) {
      title.textContent = thumbnail ? "The model's whole input" : "Everything the classifier saw";
      if (rebuilt) title.textContent = "Patches that the image was reconstructed from";
      if (thumbnail) parts.append(captionedImage(thumbnail, "a thumbnail"));
      patches.forEach((patch, index) => parts.append(numberedPatch(patch, index)));
      if (rebuilt) parts.append(captionedImage(rebuilt, "reconstructed"));
    } else if (response.maps?.length > 1 && !response.values.signed) {
      title.textContent = "Attention at each depth";
      this.attention.maps.forEach((map, index) =>
        parts.append(captionedImage(heat.attention(map, this.scaleEnd, this.input), `depth ${index + 1}`, true)));
    }
  }

  showEvidence(evidence) {
    this.find(".evidence").hidden = !evidence;
    this.find(".fraction").hidden = !this.response.maps;
    if (!evidence) return;
    for (const [name, title] of [["only", "Evidence only"], ["without", "Everything but the evidence"]]) {
      const result = evidence[name];
      const figure = this.find(`.${name}`);
      figure.querySelector("img").src = result.picture;
      const caption = figure.querySelector("figcaption");
      const heading = document.createElement("b");
      heading.textContent = title;
      const lines = [heading, result.probabilities
        ? `→ ${result.prediction} (${percent(result.probabilities[0].probability)})`
        : `→ reconstructed with an error of ${result.rebuilding_mse.toFixed(4)}`];
      if (result.judge) lines.push(`a judge: ${result.judge.class} (${percent(result.judge.probability)})`);
      caption.replaceChildren(...lines.map((line) => {
        const span = document.createElement("span");
        span.append(typeof line === "string" ? printable(line) : line);
        return span;
      }));
    }
  }

  // Explain the image by all post-hoc methods, one after another.
  async showPostHocMethods() {
    const grid = this.find(".post-hoc .grid");
    if (!this.find(".post-hoc").open || !this.image) return grid.replaceChildren();
    const [image, model] = [this.image, this.model];
    const key = `${model.model} ${image.number}`;
    if (this.comparedWith === key) return;
    this.comparedWith = key;
    grid.replaceChildren();
    for (const method of model.methods.filter((name) => name !== "model")) {
      const placeholder = captionedImage("", `${method} …`);
      grid.append(placeholder);
      try {
        const response = await request(image,
          { model: model.model, method, show: "pictures,maps", fit: "crop" });
        if (this.comparedWith !== key) return;
        const background = await loadImage(response.pictures.image);
        const href = heat.attribution(meanMap(response.maps), background, response.values.zero);
        placeholder.replaceWith(captionedImage(href, `${method}, ${response.cost_forward_passes.toFixed(0)} passes`));
      } catch (error) {
        placeholder.querySelector("figcaption").textContent = `${method}: ${error.message}`;
      }
    }
  }

  download(kind) {
    if (!this.response) return;
    const name = `${this.model.model}-${this.response.prediction ?? "reconstructed"}`.replace(/[^\w-]+/g, "_");
    if (kind === "json") saveJson(name, this.model.model, this.response);
    else (kind === "svg" ? saveSvg : savePng)(name, this.svg, this.model.model, this.response);
  }
}

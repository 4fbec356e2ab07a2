// Numbered marks on the image, as SVG: each keypoint has its own number, shape, dash and colour.

const NS = "http://www.w3.org/2000/svg";
// Colours of Okabe & Ito (2008). Colour is not needed: shape and number carry the same information.
export const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442"];
// Lengths of dashes and gaps; an empty text stands for a solid line.
const DASHES = ["", "2.2 0.9", "0.7 0.9", "3 0.8 0.7 0.8", "1.4 1.4", "4 1", "0.3 0.6"];
const CORNERS = [0, 4, 3, 6, 5, 8]; // corners of the shapes behind the numbers; 0 is a circle

export function element(name, attributes = {}, ...children) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const colour = (index) => COLOURS[index % COLOURS.length];

// Returns the number `index + 1` in its shape of radius `r` at (x, y).
export function tag(index, x, y, r) {
  const corners = CORNERS[index % CORNERS.length];
  const style = { fill: "#fff", stroke: colour(index), "stroke-width": 0.3 * r };
  const shape = corners
    ? element("polygon", { points: polygon(corners, x, y, 1.25 * r), ...style })
    : element("circle", { cx: x, cy: y, r, ...style });
  const textShift = corners === 3 ? 0.22 * r : 0; // a triangle is wider at the bottom
  const text = element("text", {
    x, y: y + 0.43 * r + textShift, "font-size": 1.25 * r, "font-weight": 700, "text-anchor": "middle",
    "font-family": "system-ui, sans-serif", fill: "#111",
  });
  text.textContent = index + 1;
  return element("g", {}, shape, text);
}

function polygon(corners, x, y, r) {
  const turn = corners === 4 || corners === 8 ? Math.PI / corners : 0;
  return Array.from({ length: corners }, (_, i) => {
    const angle = (2 * Math.PI * i) / corners - Math.PI / 2 + turn;
    return `${x + r * Math.cos(angle)},${y + r * Math.sin(angle)}`;
  }).join(" ");
}

// A frame around a patch: a dark line under a coloured, dashed one is visible on any image.
export function frame(index, box, unit) {
  const shared = { ...box, fill: "none" };
  const dash = DASHES[index % DASHES.length].split(" ").map((length) => length * unit).join(" "); // "0" for no dashes
  return [
    element("rect", { ...shared, stroke: "#000", "stroke-width": 0.42 * unit, "stroke-opacity": 0.75 }),
    element("rect", { ...shared, stroke: colour(index), "stroke-width": 0.24 * unit,
      "stroke-dasharray": dash === "0" ? "none" : dash }),
  ];
}

// The image as an SVG that marks are added to; `size` is {width, height} in pixels, with (0, 0) at
// the centre of the first pixel. It is drawn with the aspect ratio of `shape`, {width, height}.
export function image(href, size, shape, smooth = false) {
  const svg = element("svg", {
    xmlns: NS, viewBox: `-0.5 -0.5 ${size.width} ${size.height}`, width: 480,
    height: (480 * shape.height) / shape.width, class: "marks", preserveAspectRatio: "none",
  });
  svg.style.aspectRatio = shape.width / shape.height;
  svg.append(element("image", {
    href, x: -0.5, y: -0.5, width: size.width, height: size.height, preserveAspectRatio: "none",
    "image-rendering": smooth ? "auto" : "pixelated",
  }));
  return svg;
}

// Adds marks of the keypoints that the API returned to an SVG; returns the group of each, in order.
export function keypoints(svg, points, patchSize, size) {
  const unit = size.width / 28;
  const groups = points.map((point, index) => {
    const side = (patchSize - 1) * point.scale + 1;
    const [x, y] = [point.x_px - side / 2, point.y_px - side / 2];
    const box = { x, y, width: side, height: side };
    const [cx, cy] = [clampInside(x, 1.2 * unit, size.width), clampInside(y, 1.2 * unit, size.height)];
    const arm = 0.45 * unit;
    const cross = `M${point.x_px - arm} ${point.y_px}h${2 * arm}M${point.x_px} ${point.y_px - arm}v${2 * arm}`;
    const hitArea = element("rect", { ...box, fill: "#fff", "fill-opacity": 0, class: "hit" });
    return element("g", { class: "keypoint", "data-index": index }, hitArea, ...frame(index, box, unit),
      element("path", { d: cross, stroke: colour(index), "stroke-width": 0.22 * unit }),
      tag(index, cx, cy, 1.0 * unit));
  });
  svg.append(...groups);
  return groups;
}

// Adds numbered marks at the maximum of the attention at each depth (stage of the backbone).
export function peaks(svg, points, size) {
  const unit = size.width / 28;
  points.forEach((point, index) => svg.append(tag(index, point.x_px, point.y_px, 0.9 * unit)));
}

function clampInside(value, margin, extent) {
  return Math.min(extent - 0.5 - margin, Math.max(margin - 0.5, value));
}

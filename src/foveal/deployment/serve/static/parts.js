// Small images next to the large one, which show patches, maps and post-hoc methods.

import * as marks from "./marks.js";

export async function loadImage(href) {
  const image = new Image();
  image.src = href;
  await image.decode();
  return image;
}

export function meanMap(maps) {
  return maps[0].map((row, y) =>
    row.map((_, x) => maps.reduce((sum, map) => sum + map[y][x], 0) / maps.length));
}

export function captionedImage(href, caption, smooth = false) {
  const figure = document.createElement("figure");
  const image = document.createElement("img");
  if (href) image.src = href;
  image.alt = caption;
  image.className = smooth ? "smooth" : "";
  const label = document.createElement("figcaption");
  label.textContent = caption;
  figure.append(image, label);
  return figure;
}

export function numberedPatch(patch, index) {
  const svg = marks.element("svg", { viewBox: "0 0 28 28", class: "patch", role: "img",
    "aria-label": `patch ${index + 1}` });
  svg.append(
    marks.element("image", { href: patch, x: 3, y: 3, width: 24, height: 24,
      "image-rendering": "pixelated" }),
    ...marks.frame(index, { x: 3, y: 3, width: 24, height: 24 }, 2.4), marks.tag(index, 4.5, 4.5, 3.4));
  return svg;
}

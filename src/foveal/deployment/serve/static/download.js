// Downloads: the marked image and classes as SVG or PNG, and the response as JSON.

import { element, frame, tag } from "./marks.js";
import { percent, printable } from "./words.js";

const [WIDTH, IMAGE_SIDE, MARGIN] = [960, 480, 24]; // in pixels
const FONT = "system-ui, sans-serif";

export function saveJson(name, model, response) {
  const { pictures, evidence, ...rest } = response;
  const text = JSON.stringify({ model, images: [rest] }, null, 2);
  save(new Blob([text], { type: "application/json" }), `${name}.json`);
}

export function saveSvg(name, markedImage, model, response) {
  const text = figureSvg(markedImage, model, response);
  save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(name, markedImage, model, response) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(figureSvg(markedImage, model, response))}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * image.width, 2 * image.height];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save(blob, `${name}.png`), "image/png");
}

// One SVG: the image with its marks, the patches, and the class probabilities.
function figureSvg(markedImage, model, response) {
  const patches = response.pictures.patches ?? [];
  const height = IMAGE_SIDE + 2 * MARGIN + 40;
  const svg = element("svg", { xmlns: "http://www.w3.org/2000/svg", width: WIDTH, height,
    viewBox: `0 0 ${WIDTH} ${height}`, "font-family": FONT });
  svg.append(element("rect", { width: WIDTH, height, fill: "#fff" }));
  const scaledImage = markedImage.cloneNode(true);
  const [imageWidth, imageHeight] = ["width", "height"].map((side) => Number(markedImage.getAttribute(side)));
  const scale = IMAGE_SIDE / Math.max(imageWidth, imageHeight);
  const box = { x: MARGIN, y: MARGIN + 40, width: scale * imageWidth, height: scale * imageHeight };
  for (const [key, value] of Object.entries(box)) scaledImage.setAttribute(key, value);
  const left = IMAGE_SIDE + 2 * MARGIN;
  const best = response.probabilities?.[0];
  const title = best ? `${best.class} (${percent(best.probability)})` : "reconstructed";
  svg.append(textNode(`${model}: ${title}`, MARGIN, 44, 24, 700), scaledImage);
  (response.probabilities ?? []).slice(0, 5).forEach((entry, index) => {
    const y = MARGIN + 62 + 36 * index;
    svg.append(textNode(entry.class, left, y, 16), element("rect", { x: left + 130, y: y - 14,
      width: 210 * entry.probability, height: 18, fill: index ? "#b8c0c8" : "#0072b2" }),
    textNode(percent(entry.probability), left + 350, y, 15));
  });
  patches.slice(0, 9).forEach((patch, index) => {
    const [x, y, side] = [left + 140 * (index % 3), MARGIN + 250 + 100 * Math.floor(index / 3), 84];
    svg.append(element("image", { href: patch, x, y, width: side, height: side, "image-rendering": "pixelated" }),
      ...frame(index, { x, y, width: side, height: side }, 8), tag(index, x + 4, y + 4, 12));
  });
  return new XMLSerializer().serializeToString(svg);
}

function textNode(content, x, y, size, weight = 400) {
  const node = element("text", { x, y, "font-size": size, "font-weight": weight, fill: "#1d2329" });
  node.textContent = printable(content);
  return node;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Sources of images other than the drawing pad: files, the clipboard, the camera, samples.

import { samples } from "./api.js";
import { printable } from "./words.js";

const MAX_BYTES = 4_000_000; // larger files are shrunk before they are sent
const MAX_SIDE = 1600; // longer side of a shrunk image, in pixels
const CAMERA_SIDE = 512;

const find = (id) => document.getElementById(id);

// `onImage({blob, name})` is called with each image, `say(message)` with errors.
export function listen(onImage, say) {
  const onFile = async (file) => {
    if (!file) return;
    if (!file.type.startsWith("image/")) return say(`${file.name || "This"} is not an image.`);
    say("");
    const image = { blob: file, name: file.name || "pasted.png" };
    try {
      if (file.size > MAX_BYTES) image.blob = await shrink(file);
    } catch {
      return say(`${image.name} is not an image that this browser can read.`);
    }
    preview(image);
    onImage(image);
  };
  listenToFiles(onFile);
  listenToClipboard(onFile, say);
  listenToCamera(onImage, say);
}

function preview({ blob, name }) {
  const picture = find("given-image");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(blob);
  find("given-name").textContent = printable(name);
  find("given").hidden = false;
}

// Returns an image file as a JPEG with sides of at most `MAX_SIDE` pixels.
async function shrink(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width * scale, bitmap.height * scale].map(Math.round);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function listenToFiles(onFile) {
  find("file").addEventListener("change", (event) => {
    onFile(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  const drop = find("drop");
  const highlight = (event) => {
    event.preventDefault();
    drop.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, highlight);
  document.addEventListener("drop", (event) => onFile(event.dataTransfer?.files[0]));
}

function listenToClipboard(onFile, say) {
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((candidate) => candidate.type.startsWith("image/"));
    if (file) onFile(file);
  });
  find("paste").addEventListener("click", async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((candidate) => candidate.startsWith("image/"));
        if (type) return onFile(new File([await item.getType(type)], "pasted.png", { type }));
      }
      say("There is no image in the clipboard.");
    } catch {
      say("The browser does not allow the page to read the clipboard: press Ctrl+V.");
    }
  });
}

function listenToCamera(onImage, say) {
  const [video, startButton, takeButton] = [find("video"), find("camera-start"), find("camera-take")];
  let stream = null;
  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.hidden = takeButton.disabled = true;
    startButton.textContent = "Start the camera";
  };
  startButton.addEventListener("click", async () => {
    if (stream) return stop();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      return say("There is no camera, or the browser does not allow the page to use it.");
    }
    say("");
    video.srcObject = stream;
    await video.play();
    video.hidden = takeButton.disabled = false;
    startButton.textContent = "Stop the camera";
  });
  takeButton.addEventListener("click", () => {
    const side = Math.min(video.videoWidth, video.videoHeight);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = CAMERA_SIDE;
    canvas.getContext("2d").drawImage(video, (video.videoWidth - side) / 2,
      (video.videoHeight - side) / 2, side, side, 0, 0, CAMERA_SIDE, CAMERA_SIDE);
    canvas.toBlob((blob) => onImage({ blob, name: "camera.png" }), "image/png");
  });
  document.addEventListener("foveal:source", (event) => {
    if (event.detail !== "camera" && stream) stop();
  });
}

// Fills the gallery once; `onImage({blob, name})` is called with each sample that is chosen.
export async function showSamples(onImage) {
  const gallery = find("samples");
  if (gallery.childElementCount) return;
  for (const sample of await samples()) {
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    image.src = sample.image;
    image.alt = `a handwritten ${sample.label}`;
    button.append(image);
    button.addEventListener("click", async () => {
      for (const other of gallery.children) other.setAttribute("aria-pressed", other === button);
      onImage({ blob: blobOf(sample.image), name: sample.name });
    });
    gallery.append(button);
  }
}

function blobOf(dataUrl) {
  const binary = atob(dataUrl.split(",")[1]);
  return new Blob([Uint8Array.from(binary, (character) => character.charCodeAt(0))], { type: "image/png" });
}

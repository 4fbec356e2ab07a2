// The part of the original image that a model was given, at the original resolution.

const MAX_SIDE = 1600; // longer side of the drawn image, in pixels

// Returns a canvas, or null if the image has no more pixels than the model's input or the browser
// cannot read it. `size` is {width, height} of the model's input in pixels, `cropped` whether it was
// cropped at the centre.
export async function original(image, size, cropped) {
  const key = `${size.width}x${size.height} ${cropped}`;
  image.originals ??= new Map(); // drawn once per image, not once per request
  if (!image.originals.has(key)) {
    image.originals.set(key, draw(image.blob, size, cropped).catch(() => null));
  }
  return image.originals.get(key);
}

async function draw(blob, size, cropped) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(bitmap.width / size.width, bitmap.height / size.height);
  const width = cropped ? scale * size.width : bitmap.width;
  const height = cropped ? scale * size.height : bitmap.height;
  if (Math.max(width, height) <= Math.max(size.width, size.height)) return null;
  const outputScale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * outputScale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // background of transparent pixels, as on the server
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - width) / 2, (bitmap.height - height) / 2, width, height,
    0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

// The picture as it was given: what a model saw of it, in the picture's own pixels.

const LONGEST = 1600; // pixels along the longer side that are drawn

// A canvas; null where the picture has no more pixels than the model got, or the browser cannot
// read it. `size` is {width, height} in pixels of what the model got, `cropped` whether that was
// cut out of the middle.
export async function original(image, size, cropped) {
  const key = `${size.width}x${size.height} ${cropped}`;
  image.originals ??= new Map(); // drawn once, not for every question about the same picture
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
  const shrink = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.round(side * shrink)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // below what is transparent, as the server has it
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - width) / 2, (bitmap.height - height) / 2, width, height,
    0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

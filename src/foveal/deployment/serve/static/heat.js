// Maps as colours over the image: attention on a logarithmic scale, attributions with signs.

const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100],
  [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199],
  [239, 138, 98], [178, 24, 43]];
const MIN_ATTENTION = 0.1; // lower end of the colour scale, relative to uniform attention
const ATTENTION_OPACITY = 0.65;
const [FAINT, STRONG] = [0.15, 0.7]; // opacity of signed values over photographs, at 0 and at either extreme

// Returns each map divided by its mean, so that uniform attention is 1, and the mean of these maps.
export function relative(maps) {
  const relativeMaps = maps.map((map) => {
    const mean = average(map.flat());
    return map.map((row) => row.map((value) => value / Math.max(mean, 1e-12)));
  });
  const mean = relativeMaps[0].map((row, y) =>
    row.map((_, x) => average(relativeMaps.map((map) => map[y][x]))));
  return { maps: relativeMaps, mean };
}

// The upper end of the colour scale that relative maps share.
export function scaleEnd(maps) {
  return Math.max(1 / MIN_ATTENTION, ...maps.flat(2));
}

// Returns a data URL of a relative map over the greyscale image; `end` is that of `scaleEnd`.
export function attention(map, end, image) {
  const span = Math.log(end / MIN_ATTENTION);
  return blend(map, image, MAGMA, (value) => Math.log(Math.max(value, MIN_ATTENTION) / MIN_ATTENTION) / span, 1);
}

// Returns a data URL of signed values over the pale grey image: red supports the class, blue opposes
// it. The neutral value is 0 if `zero` is true, else the mean.
export function attribution(map, image, zero) {
  const values = map.flat();
  const neutral = zero ? 0 : average(values);
  const maxDistance = Math.max(...values.map((value) => Math.abs(value - neutral))) || 1;
  return blend(map, image, SIGNED, (value) => ((value - neutral) / maxDistance + 1) / 2, 0.5);
}

// Draws a map in colours over an image. The result has the finer of the two resolutions: a map that is
// coarser than the image is interpolated. `scale` converts a value to a position from 0 to 1 in the
// list of colours, and a `contrast` below 1 fades the image to white.
function blend(map, image, colours, scale, contrast) {
  const isFiner = image.width > map[0].length;
  const size = isFiner ? [image.width, image.height] : [map[0].length, map.length];
  const context = blankContext(...size);
  context.drawImage(image, 0, 0, ...size);
  const pixels = context.getImageData(0, 0, ...size);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b] = pixels.data.subarray(i, i + 3);
    pixels.data.fill(255 * (1 - contrast) + ((r + g + b) / 3) * contrast, i, i + 3);
  }
  context.putImageData(pixels, 0, 0);
  const isFaint = isFiner && colours === SIGNED; // small attributions stay transparent
  const alpha = (value) => (isFaint ? FAINT + (STRONG - FAINT) * Math.abs(2 * value - 1) : ATTENTION_OPACITY);
  context.drawImage(coloured(isFiner ? collapseBlocks(map) : map, colours, scale, alpha), 0, 0, ...size);
  return isFiner ? context.canvas.toDataURL("image/jpeg", 0.92) : context.canvas.toDataURL();
}

function coloured(map, colours, scale, alpha) {
  const context = blankContext(map[0].length, map.length);
  const pixels = context.createImageData(map[0].length, map.length);
  map.flat().forEach((value, i) => {
    const position = scale(value);
    pixels.data.set([...interpolate(colours, position), 255 * alpha(position)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function blankContext(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas.getContext("2d", { willReadFrequently: true });
}

// The map with one value per block, if it consists of uniform blocks of equal size; else unchanged.
export function collapseBlocks(map) {
  const sameRow = (a, b) => a.every((value, x) => value === b[x]);
  const columns = map[0].map((_, x) => map.map((row) => row[x]));
  const steps = [map, columns].map((lines) => {
    const step = lines.findIndex((line) => !sameRow(line, lines[0]));
    const isDivisor = step > 0 && lines.length % step === 0;
    return isDivisor && lines.every((line, i) => sameRow(line, lines[i - (i % step)])) ? step : 1;
  });
  const rows = map.filter((_, y) => y % steps[0] === 0);
  return rows.map((row) => row.filter((_, x) => x % steps[1] === 0));
}

function interpolate(colours, fraction) {
  const position = Math.min(1, Math.max(0, fraction)) * (colours.length - 1);
  const lower = Math.min(Math.floor(position), colours.length - 2);
  return colours[lower].map((level, i) => level + (colours[lower + 1][i] - level) * (position - lower));
}

function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

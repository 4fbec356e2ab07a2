// Maps as colours over the image: attention on a logarithmic scale, attributions with signs.

const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100],
  [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199],
  [239, 138, 98], [178, 24, 43]];
const MIN_ATTENTION = 0.1; // relative to uniform attention; lower values look the same
const OPAQUE = 0.65;
const [FAINT, STRONG] = [0.15, 0.7]; // opacity of signed values over photographs, at 0 and at the extremes

// Each map as multiples of its mean, and the mean of all maps; uniform attention is 1.
export function relative(maps) {
  const each = maps.map((map) => {
    const mean = average(map.flat());
    return map.map((row) => row.map((value) => value / Math.max(mean, 1e-12)));
  });
  const all = each[0].map((row, y) => row.map((_, x) => average(each.map((map) => map[y][x]))));
  return { each, all };
}

export function scaleEnd(maps) {
  return Math.max(1 / MIN_ATTENTION, ...maps.flat(2));
}

// A data URL of a relative map over the greyscale image.
export function attention(map, end, image) {
  const span = Math.log(end / MIN_ATTENTION);
  return blend(map, image, MAGMA, (value) => Math.log(Math.max(value, MIN_ATTENTION) / MIN_ATTENTION) / span, 1);
}

// A data URL of signed values over the pale grey image: red for, blue against. The neutral value
// is 0 if `zero` is true, else the mean.
export function attribution(map, image, zero) {
  const values = map.flat();
  const middle = zero ? 0 : average(values);
  const reach = Math.max(...values.map((value) => Math.abs(value - middle))) || 1;
  return blend(map, image, SIGNED, (value) => ((value - middle) / reach + 1) / 2, 0.5);
}

// The image keeps its own resolution, and a coarse map is interpolated.
function blend(map, image, colours, scale, contrast) {
  const finer = image.width > map[0].length;
  const size = finer ? [image.width, image.height] : [map[0].length, map.length];
  const context = empty(...size);
  context.drawImage(image, 0, 0, ...size);
  const pixels = context.getImageData(0, 0, ...size);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [r, g, b] = pixels.data.subarray(i, i + 3);
    pixels.data.fill(255 * (1 - contrast) + ((r + g + b) / 3) * contrast, i, i + 3);
  }
  context.putImageData(pixels, 0, 0);
  const faint = finer && colours === SIGNED; // small attributions stay transparent
  const alpha = (value) => (faint ? FAINT + (STRONG - FAINT) * Math.abs(2 * value - 1) : OPAQUE);
  context.drawImage(coloured(finer ? cells(map) : map, colours, scale, alpha), 0, 0, ...size);
  return finer ? context.canvas.toDataURL("image/jpeg", 0.92) : context.canvas.toDataURL();
}

function coloured(map, colours, scale, alpha) {
  const context = empty(map[0].length, map.length);
  const pixels = context.createImageData(map[0].length, map.length);
  map.flat().forEach((value, i) => {
    const position = scale(value);
    pixels.data.set([...between(colours, position), 255 * alpha(position)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return context.canvas;
}

function empty(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas.getContext("2d", { willReadFrequently: true });
}

// A map with one value per location, if all locations are blocks of the same size.
export function cells(map) {
  const sameRow = (a, b) => a.every((value, x) => value === b[x]);
  const columns = map[0].map((_, x) => map.map((row) => row[x]));
  const steps = [map, columns].map((lines) => {
    const step = lines.findIndex((line) => !sameRow(line, lines[0]));
    const divides = step > 0 && lines.length % step === 0;
    return divides && lines.every((line, i) => sameRow(line, lines[i - (i % step)])) ? step : 1;
  });
  const rows = map.filter((_, y) => y % steps[0] === 0);
  return rows.map((row) => row.filter((_, x) => x % steps[1] === 0));
}

function between(colours, fraction) {
  const position = Math.min(1, Math.max(0, fraction)) * (colours.length - 1);
  const first = Math.min(Math.floor(position), colours.length - 2);
  return colours[first].map((c, i) => c + (colours[first + 1][i] - c) * (position - first));
}

function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

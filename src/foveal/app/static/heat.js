// Maps as colours over the picture: attention on a logarithmic scale, attributions by sign.

const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100],
  [251, 135, 97], [254, 194, 135], [252, 253, 191]];
const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199],
  [239, 138, 98], [178, 24, 43]];
const LEAST = 0.1; // of an even share: what is less looks like this
const OPAQUE = 0.65;

export const css = { attention: "magma", attribution: "signed" };

// Each map as multiples of its mean, and the mean of all: what every place would get is 1.
export function relative(maps) {
  const each = maps.map((map) => {
    const mean = average(map.flat());
    return map.map((row) => row.map((value) => value / Math.max(mean, 1e-12)));
  });
  const all = each[0].map((row, y) => row.map((_, x) => average(each.map((map) => map[y][x]))));
  return { each, all };
}

export function scaleEnd(maps) {
  return Math.max(1 / LEAST, ...maps.flat(2));
}

// A data URL of a relative map over the picture in grey.
export function attention(map, end, picture) {
  const span = Math.log(end / LEAST);
  return blend(map, picture, MAGMA, (value) => Math.log(Math.max(value, LEAST) / LEAST) / span, 1);
}

// A data URL of signed values over the picture in pale grey: red for, blue against.
export function attribution(map, picture, method) {
  const values = map.flat();
  const middle = method === "rise" ? average(values) : 0; // its zero says nothing
  const reach = Math.max(...values.map((value) => Math.abs(value - middle))) || 1;
  return blend(map, picture, SIGNED, (value) => ((value - middle) / reach + 1) / 2, 0.5);
}

function blend(map, picture, colours, share, contrast) {
  const [height, width] = [map.length, map[0].length];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = pixels.data.subarray(4 * i, 4 * i + 3);
    const grey = 255 * (1 - contrast) + ((r + g + b) / 3) * contrast;
    const colour = between(colours, share(map[Math.floor(i / width)][i % width]));
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = grey * (1 - OPAQUE) + colour[c] * OPAQUE;
    }
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

function between(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const first = Math.min(Math.floor(place), colours.length - 2);
  return colours[first].map((c, i) => c + (colours[first + 1][i] - c) * (place - first));
}

function average(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// The drawing pad: strokes are stored as lines and rendered as an image of 28 x 28 pixels.

const SIDE = 28;
const INK_BOX = 20; // MNIST digits fit into 20 x 20 pixels …
const PEN = 2.3; // … drawn with a pen about this wide
const EXAMPLE = [[
  [0.33, 0.27], [0.4, 0.21], [0.5, 0.19], [0.6, 0.22], [0.65, 0.3], [0.62, 0.39], [0.54, 0.45],
  [0.46, 0.47], [0.55, 0.49], [0.64, 0.55], [0.67, 0.65], [0.62, 0.75], [0.52, 0.81], [0.41, 0.8],
  [0.32, 0.73],
]];

export class Pad {
  // `onChange(time)` is called on every change, with the time of the event.
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.strokes = structuredClone(EXAMPLE);
    this.example = true; // until the first stroke
    this.centred = true;
    this.cursor = { x: 0.5, y: 0.25, down: false, shown: false };
    this.listen();
    this.paint();
  }

  get empty() {
    return this.strokes.length === 0;
  }

  listen() {
    const position = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    let drawing = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.canvas.focus({ preventScroll: true });
      this.cursor.shown = this.cursor.down = false;
      drawing = event.pointerId;
      this.begin(position(event), event.timeStamp);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== drawing) return;
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.stroke().push(position(part));
      this.notify(event.timeStamp);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => (drawing = null));
    }
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => {
      this.cursor.shown = this.cursor.down = false;
      this.paint();
    });
  }

  begin(point, time) {
    if (this.example) this.strokes = [];
    this.example = false;
    this.strokes.push([point]);
    this.notify(time);
  }

  stroke() {
    return this.strokes[this.strokes.length - 1];
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const cursor = this.cursor;
    if (event.key === " ") {
      cursor.down = !cursor.down;
      if (cursor.down) this.begin([cursor.x, cursor.y], event.timeStamp);
    } else if (event.key in step) {
      const [dx, dy] = step[event.key];
      cursor.x = Math.min(1, Math.max(0, cursor.x + dx / SIDE));
      cursor.y = Math.min(1, Math.max(0, cursor.y + dy / SIDE));
      if (cursor.down) this.stroke().push([cursor.x, cursor.y]);
    } else {
      return;
    }
    event.preventDefault();
    cursor.shown = true;
    if (cursor.down) this.notify(event.timeStamp);
    this.paint();
  }

  undo() {
    this.strokes.pop();
    this.notify(performance.now());
  }

  clear() {
    this.strokes = [];
    this.example = this.cursor.down = false;
    this.notify(performance.now());
  }

  centre(on) {
    this.centred = on;
    this.notify(performance.now());
  }

  notify(time) {
    this.paint();
    this.onChange(time);
  }

  paint() {
    const side = this.canvas.width;
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    ink(context, this.strokes, side, [0, 0], (side * PEN) / SIDE);
    if (this.cursor.shown) {
      context.strokeStyle = this.cursor.down ? "#e69f00" : "#56b4e9";
      context.lineWidth = 4;
      context.beginPath();
      context.arc(this.cursor.x * side, this.cursor.y * side, 14, 0, 7);
      context.stroke();
    }
  }

  // White ink on black, 28 x 28: as drawn, or scaled and centred as in MNIST.
  async image() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    let [scale, shift] = [SIDE, [0, 0]];
    if (this.centred && !this.empty) [scale, shift] = placement(this.strokes);
    draw(context, this.strokes, scale, shift);
    if (this.centred && !this.empty) {
      const [dx, dy] = centring(context, shift, this.strokes, scale);
      draw(context, this.strokes, scale, [shift[0] + dx, shift[1] + dy]);
    }
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return { blob, name: "drawing.png" };
  }
}

function draw(context, strokes, scale, shift) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, SIDE, SIDE);
  ink(context, strokes, scale, shift, PEN);
}

function ink(context, strokes, scale, [left, top], pen) {
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * scale + left, y * scale + top]);
    context.beginPath();
    context.moveTo(...points[0]);
    // Curves through the midpoints make a smooth line of the few points of a fast stroke.
    for (let i = 1; i < points.length - 1; i++) {
      const [x, y] = points[i];
      context.quadraticCurveTo(x, y, (x + points[i + 1][0]) / 2, (y + points[i + 1][1]) / 2);
    }
    context.lineTo(...points[points.length - 1]);
    context.stroke();
  }
}

function bounds(strokes) {
  const [xs, ys] = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

// Scale and shift that put the ink into the box of 20 x 20 in the middle.
function placement(strokes) {
  const [left, top, right, bottom] = bounds(strokes);
  const extent = Math.max(right - left, bottom - top, 0.06); // a dot stays small
  const scale = (INK_BOX - PEN) / extent;
  const middle = SIDE / 2;
  return [scale, [middle - ((left + right) / 2) * scale, middle - ((top + bottom) / 2) * scale]];
}

// Shift of the ink's centre of mass to the middle, limited to keep the ink inside.
function centring(context, shift, strokes, scale) {
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  let [mass, x, y] = [0, 0, 0];
  for (let i = 0; i < SIDE * SIDE; i++) {
    mass += data[4 * i];
    x += data[4 * i] * (i % SIDE);
    y += data[4 * i] * Math.floor(i / SIDE);
  }
  if (!mass) return [0, 0];
  const shifts = [(SIDE - 1) / 2 - x / mass, (SIDE - 1) / 2 - y / mass];
  const [left, top, right, bottom] = bounds(strokes);
  const room = [[left, right], [top, bottom]].map(([first, last], axis) => [
    PEN / 2 - (first * scale + shift[axis]),
    SIDE - PEN / 2 - (last * scale + shift[axis]),
  ]);
  return shifts.map((value, axis) => Math.min(room[axis][1], Math.max(room[axis][0], value)));
}

// The drawing pad. A stroke is a list of points (x, y) from 0 to 1, and all strokes are drawn as an
// image of 28 x 28 pixels. Ink is what the strokes cover.

const SIDE = 28;
const INK_BOX = 20; // MNIST digits fit into 20 x 20 pixels
const PEN = 2.3; // approximate line width of MNIST digits, in pixels
// The strokes that the pad begins with: a 3.
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
    this.isExample = true; // until the first stroke
    this.centred = true; // whether the drawing is scaled and centred as in MNIST
    this.cursor = { x: 0.5, y: 0.25, down: false, shown: false }; // the pen of the keyboard
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
    let activePointer = null; // id of the pointer that draws
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.canvas.focus({ preventScroll: true });
      this.cursor.shown = this.cursor.down = false;
      activePointer = event.pointerId;
      this.begin(position(event), event.timeStamp);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== activePointer) return;
      for (const moveEvent of event.getCoalescedEvents?.() ?? [event]) this.currentStroke().push(position(moveEvent));
      this.notify(event.timeStamp);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => (activePointer = null));
    }
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("blur", () => {
      this.cursor.shown = this.cursor.down = false;
      this.paint();
    });
  }

  begin(point, time) {
    if (this.isExample) this.strokes = [];
    this.isExample = false;
    this.strokes.push([point]);
    this.notify(time);
  }

  currentStroke() {
    return this.strokes[this.strokes.length - 1];
  }

  onKey(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const cursor = this.cursor;
    if (event.key === " ") {
      cursor.down = !cursor.down;
      if (cursor.down) this.begin([cursor.x, cursor.y], event.timeStamp);
    } else if (event.key in steps) {
      const [dx, dy] = steps[event.key];
      cursor.x = Math.min(1, Math.max(0, cursor.x + dx / SIDE));
      cursor.y = Math.min(1, Math.max(0, cursor.y + dy / SIDE));
      if (cursor.down) this.currentStroke().push([cursor.x, cursor.y]);
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
    this.isExample = this.cursor.down = false;
    this.notify(performance.now());
  }

  setCentred(centred) {
    this.centred = centred;
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
    drawStrokes(context, this.strokes, side, [0, 0], (side * PEN) / SIDE);
    if (this.cursor.shown) {
      context.strokeStyle = this.cursor.down ? "#e69f00" : "#56b4e9";
      context.lineWidth = 4;
      context.beginPath();
      context.arc(this.cursor.x * side, this.cursor.y * side, 14, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // Returns the drawing as {blob, name}: white ink on black, 28 x 28 pixels, as drawn or scaled and
  // centred as in MNIST.
  async image() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    let [scale, shift] = [SIDE, [0, 0]];
    if (this.centred && !this.empty) [scale, shift] = placement(this.strokes);
    redraw(context, this.strokes, scale, shift);
    if (this.centred && !this.empty) {
      const [dx, dy] = centring(context, shift, this.strokes, scale);
      redraw(context, this.strokes, scale, [shift[0] + dx, shift[1] + dy]);
    }
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return { blob, name: "drawing.png" };
  }
}

// Clears the image of 28 x 28 pixels, and draws the strokes, scaled and then shifted.
function redraw(context, strokes, scale, shift) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, SIDE, SIDE);
  drawStrokes(context, strokes, scale, shift, PEN);
}

function drawStrokes(context, strokes, scale, [left, top], pen) {
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * scale + left, y * scale + top]);
    context.beginPath();
    context.moveTo(...points[0]);
    // Curves through the midpoints keep a fast stroke smooth although it has few points.
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

// Shift that moves the ink's centre of mass to the middle, limited to keep the ink inside.
function centring(context, shift, strokes, scale) {
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  let [mass, sumX, sumY] = [0, 0, 0];
  for (let i = 0; i < SIDE * SIDE; i++) {
    mass += data[4 * i];
    sumX += data[4 * i] * (i % SIDE);
    sumY += data[4 * i] * Math.floor(i / SIDE);
  }
  if (!mass) return [0, 0];
  const shifts = [(SIDE - 1) / 2 - sumX / mass, (SIDE - 1) / 2 - sumY / mass];
  const [left, top, right, bottom] = bounds(strokes);
  const ranges = [[left, right], [top, bottom]].map(([first, last], axis) => [
    PEN / 2 - (first * scale + shift[axis]),
    SIDE - PEN / 2 - (last * scale + shift[axis]),
  ]);
  return shifts.map((value, axis) => Math.min(ranges[axis][1], Math.max(ranges[axis][0], value)));
}

// Texts and bars of predictions and model cards.

// Returns a fraction from 0 to 1 as text, which is never rounded up to 100%.
export function percent(fraction) {
  if (fraction > 0.9995) return "> 99.9%";
  return `${(100 * fraction).toFixed(fraction > 0.99 || fraction < 0.1 ? 1 : 0)}%`;
}

// Control characters, unpaired surrogates and characters that change the direction of text.
const HIDDEN = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;

// A name as one line of text without hidden characters.
export function printable(name) {
  return String(name ?? "").replace(HIDDEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const FIGURES = {
  accuracy: ["accuracy", "fraction of the test images that are classified correctly", percent],
  evidence_fraction: ["evidence", "mean fraction of an image's pixels that the decision is made from", percent],
  position_leakage: ["leakage", "accuracy of a probe that is given only the keypoints; closer to chance is better", twoDecimals],
  content_following: ["content following", "how often the prediction follows the pixels when another image is cut at the same " +
    "keypoints; higher is better", twoDecimals],
  position_following: ["position following", "how often the prediction follows the keypoint positions instead; " +
    "lower is better", twoDecimals],
  random_focus_accuracy: ["random focus", "accuracy with another image's keypoints", percent],
  sufficiency: ["sufficiency", "accuracy of a judge on the evidence alone", percent],
  necessity: ["necessity", "drop in a judge's accuracy without the evidence", percent],
  shuffled_attention_accuracy: ["shuffled maps", "accuracy with another image's attention maps", percent],
  uniform_attention_accuracy: ["uniform maps", "accuracy with uniform attention", percent],
  rebuilding_mse: ["error", "mean squared error of the reconstructed images", (value) => value.toFixed(4)],
  parameters: ["parameters", "number of learned parameters", (value) => value.toLocaleString("en")],
  macs: ["MACs", "multiply-adds per image", (value) => value.toLocaleString("en")],
  latency_ms: ["latency", "time per image on one thread", (value) => `${value.toFixed(2)} ms`],
};

function twoDecimals(value) {
  return value.toFixed(2);
}

// Show a text, or hide the node if the text is empty.
export function setText(node, content) {
  node.textContent = printable(content);
  node.hidden = !content;
}

// Show the figures (values of metrics) on a model's card: the main ones in one line, and all in a list
// with their meanings.
export function fillCard(line, list, model) {
  const figures = model.figures;
  const parts = [];
  if (figures.accuracy) parts.push(`${(100 * figures.accuracy).toFixed(2)}% accuracy on ${figures.data}`);
  if (figures.rebuilding_mse) parts.push(`reconstructs ${figures.data} with an error of ${figures.rebuilding_mse.toFixed(4)}`);
  if (model.evidence_kind === "patches" && figures.evidence_fraction) {
    parts.push(`looks at ${percent(figures.evidence_fraction)} of the pixels`);
  }
  if (figures.parameters) parts.push(`${figures.parameters.toLocaleString("en")} parameters`);
  line.textContent = printable(parts.join(" · "));
  list.replaceChildren(...Object.entries(FIGURES)
    .filter(([key]) => typeof figures[key] === "number")
    .flatMap(([key, [name, meaning, show]]) => {
      const term = document.createElement("dt");
      term.textContent = `${name} ${show(figures[key])}`;
      const description = document.createElement("dd");
      description.textContent = meaning;
      return [term, description];
    }));
  list.parentElement.hidden = !list.childElementCount;
}

// Show the prediction as text. If the user has moved keypoints, `ownResponse` is the response at the
// model's own keypoints, else null.
export function showPrediction(root, response, model, ownResponse) {
  const best = response.probabilities?.[0];
  root.querySelector(".prediction").textContent = best ? printable(best.class) : "reconstructed";
  root.querySelector(".confidence").textContent = best
    ? percent(best.probability) : `error ${response.rebuilding_mse.toFixed(4)}`;
  const parts = [];
  if (response.keypoints) {
    parts.push(`from ${response.keypoints.length} patches, ${percent(response.evidence_fraction)} of the pixels`);
  } else if (model.evidence_kind === "maps") parts.push("weights the whole image");
  else parts.push("sees the whole image");
  if (ownResponse && best) {
    const ownBest = ownResponse.probabilities[0];
    parts.push(`at your keypoints; at the model's own keypoints: ${ownBest.class} (${percent(ownBest.probability)})`);
  }
  root.querySelector(".source").textContent = printable(parts.join("; "));
}

export function showBars(list, probabilities) {
  const rows = probabilities.slice(0, 5).map((entry, index) => {
    const row = document.createElement("li");
    if (index === 0) row.className = "best";
    const [name, track, bar, percentage] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
    name.textContent = printable(entry.class);
    name.className = "name";
    track.className = "track";
    bar.className = "bar";
    bar.style.width = `${100 * entry.probability}%`;
    percentage.className = "percentage";
    percentage.textContent = percent(entry.probability);
    track.append(bar);
    row.append(name, track, percentage);
    return row;
  });
  list.replaceChildren(...rows);
  list.hidden = !rows.length;
}

// Requests to the server; every failure is an Error with a readable message.

export async function models() {
  return (await readJson(await fetch("v1/models"))).models;
}

export async function samples() {
  return (await readJson(await fetch("v1/samples"))).samples;
}

// Returns the response for one image, {blob, name}. `options` are the fields of POST /v1/explain;
// those that are undefined or null are omitted.
export async function explain(image, options, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined && value !== null) form.append(name, value);
  }
  form.append("image", image.blob, image.name);
  const response = await readJson(await fetch("v1/explain", { method: "POST", body: form, signal }));
  return response.images[0];
}

async function readJson(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // A proxy in front of the server may send a response that is not JSON.
  }
  if (response.ok && body) return body;
  const error = new Error(body?.detail ?? `The server responded with status ${response.status}.`);
  error.busy = response.status === 429; // the request may be repeated
  throw error;
}

// Renders openapi.json without scripts from other sites.

const node = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};

// Text with `code` in it.
function prose(text) {
  const paragraph = node("span");
  text.split("`").forEach((part, index) => paragraph.append(index % 2 ? node("code", part) : part));
  return paragraph;
}

function table(rows) {
  const body = node("tbody");
  for (const cells of rows) {
    const row = node("tr");
    cells.forEach((cell, index) => row.append(node("td", "", index ? prose(cell) : node("code", cell))));
    body.append(row);
  }
  const wide = node("div", "", node("table", "", body));
  wide.className = "wide";
  return wide;
}

function kind(schema) {
  const choices = (schema.anyOf ?? [schema]).filter((choice) => choice.type !== "null");
  return choices.map((choice) => choice.enum?.join(" | ") ?? choice.const ??
    (choice.type === "array" ? `list of ${kind(choice.items ?? {})}` : choice.format ?? choice.type ?? "")).join(" or ");
}

function body(content) {
  return Object.entries(content).flatMap(([type, { schema }]) => [
    node("h3", type),
    table(Object.entries(schema.properties ?? {}).map(([name, property]) => [
      name, kind(property), [schema.required?.includes(name) ? "Required." : "", property.description ?? "",
        property.default !== undefined && property.default !== null ? `Default: ${JSON.stringify(property.default)}.` : ""].join(" ")])),
  ]);
}

function route(path, method, spec) {
  const section = node("section", "", node("h2", `${method.toUpperCase()} ${path}`));
  section.append(node("p", "", prose(`${spec.summary ?? ""}. ${spec.description ?? ""}`)));
  if (spec.requestBody) section.append(...body(spec.requestBody.content));
  const example = spec.responses["200"]?.content?.["application/json"]?.example;
  if (example) section.append(node("h3", "Response"), node("pre", JSON.stringify(example, null, 2)));
  const others = Object.entries(spec.responses).filter(([status]) => status !== "200");
  if (others.length) section.append(node("h3", "Errors"), table(others.map(([status, response]) => [status, response.description])));
  if (path === "/v1/explain") {
    const curl = `curl -F model=mnist-focus -F image=@digit.png ${new URL("v1/explain", location.href)}`;
    section.append(node("h3", "Example"), node("pre", curl));
  }
  return section;
}

const spec = await (await fetch("openapi.json")).json();
document.getElementById("about").append(prose(spec.info.description));
for (const [path, methods] of Object.entries(spec.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    document.getElementById("routes").append(route(path, method, operation));
  }
}

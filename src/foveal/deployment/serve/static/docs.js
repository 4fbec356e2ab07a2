// Shows the API's description, openapi.json, without scripts from other sites.

const node = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};

// Text whose parts between backticks are shown as code.
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
  const scrollable = node("div", "", node("table", "", body));
  scrollable.className = "wide";
  return scrollable;
}

// The type in a JSON schema in words, such as "list of number".
function typeText(schema) {
  const choices = (schema.anyOf ?? [schema]).filter((choice) => choice.type !== "null");
  return choices.map((choice) => choice.enum?.join(" | ") ?? choice.const ??
    (choice.type === "array" ? `list of ${typeText(choice.items ?? {})}` : choice.format ?? choice.type ?? "")).join(" or ");
}

function requestBody(content) {
  return Object.entries(content).flatMap(([type, { schema }]) => [
    node("h3", type),
    table(Object.entries(schema.properties ?? {}).map(([name, property]) => [
      name, typeText(property), [schema.required?.includes(name) ? "Required." : "", property.description ?? "",
        property.default !== undefined && property.default !== null ? `Default: ${JSON.stringify(property.default)}.` : ""].join(" ")])),
  ]);
}

function route(path, method, operation) {
  const section = node("section", "", node("h2", `${method.toUpperCase()} ${path}`));
  section.append(node("p", "", prose(`${operation.summary ?? ""}. ${operation.description ?? ""}`)));
  if (operation.requestBody) section.append(...requestBody(operation.requestBody.content));
  const example = operation.responses["200"]?.content?.["application/json"]?.example;
  if (example) section.append(node("h3", "Response"), node("pre", JSON.stringify(example, null, 2)));
  const errors = Object.entries(operation.responses).filter(([status]) => status !== "200");
  if (errors.length) section.append(node("h3", "Errors"), table(errors.map(([status, response]) => [status, response.description])));
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

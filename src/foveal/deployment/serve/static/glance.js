// Small summary of the predictions, for phones that cannot show the pad and the predictions at once.

// Returns a function that is called with a panel; the summary is then shown while the image of this
// panel is below the screen.
export function glance(summary, panels) {
  let isBelow = false;
  const paint = () => {
    const explained = panels.filter((panel) => panel.response);
    summary.hidden = !isBelow || !explained.length;
    if (summary.hidden) return;
    summary.replaceChildren(...explained.map((panel) => {
      const link = document.createElement("button");
      link.type = "button";
      link.tabIndex = -1;
      const prediction = document.createElement("b");
      prediction.textContent = panel.root.querySelector(".prediction").textContent;
      link.append(panel.svg.cloneNode(true), prediction);
      link.addEventListener("click", () => panel.root.scrollIntoView({ behavior: "smooth" }));
      return link;
    }));
  };
  const observer = new IntersectionObserver(([entry]) => {
    isBelow = !entry.isIntersecting && entry.boundingClientRect.top > 0;
    paint();
  }, { rootMargin: "0px 0px -120px" });
  document.addEventListener("foveal:shown", paint);
  return (panel) => {
    observer.disconnect();
    observer.observe(panel.root.querySelector(".shown-image"));
  };
}

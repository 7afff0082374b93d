// Draws the Mermaid diagrams of a page in the colours of the page, and again when these change.
// The program that draws lies beside this file and is loaded only where there is a diagram.
(() => {
  const program = new URL("mermaid.tiny.js", document.currentScript.src);
  const night = matchMedia("(prefers-color-scheme: dark)");
  let drawn = 0;

  function isDark() {
    const theme = document.body.dataset.theme;
    return theme === "dark" || (theme !== "light" && night.matches);
  }

  // The text of a diagram moves into a fold below its picture.
  function prepared(source) {
    const figure = document.createElement("div");
    figure.className = "diagram";
    const picture = figure.appendChild(document.createElement("div"));
    picture.className = "diagram-picture";
    picture.setAttribute("aria-hidden", "true");
    const fold = figure.appendChild(document.createElement("details"));
    fold.appendChild(document.createElement("summary")).textContent = "The diagram in text";
    source.replaceWith(figure);
    fold.append(source);
    return { text: source.textContent, picture, figure };
  }

  async function draw(diagrams) {
    mermaid.initialize({
      startOnLoad: false,
      securityLevel: "strict",
      theme: isDark() ? "dark" : "neutral",
      fontFamily: getComputedStyle(document.body).fontFamily,
      sequence: { useMaxWidth: true, mirrorActors: false },
    });
    for (const { text, picture, figure } of diagrams) {
      const { svg } = await mermaid.render(`cachelab-diagram-${++drawn}`, text);
      picture.innerHTML = svg;
      figure.dataset.drawn = isDark() ? "dark" : "light";
    }
  }

  function begin() {
    const diagrams = [...document.querySelectorAll("pre.mermaid")].map(prepared);
    // One drawing after the other: Mermaid has one set of colours for all.
    let last = Promise.resolve();
    let colours;
    const again = () => {
      if (colours === isDark()) return;
      colours = isDark();
      last = last.then(() => draw(diagrams));
    };
    again();
    new MutationObserver(again).observe(document.body, { attributeFilter: ["data-theme"] });
    night.addEventListener("change", again);
  }

  addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector("pre.mermaid")) return;
    const script = document.createElement("script");
    script.src = program;
    script.addEventListener("load", begin);
    document.head.append(script);
  });
})();

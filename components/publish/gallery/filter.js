"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const concepts = [...document.querySelectorAll(".concept")];
  const tiles = new Map([...document.querySelectorAll(".wall li")].map((tile) => [tile.dataset.concept, tile]));

  function apply() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const model = form.elements.model.value, kind = form.elements.kind.value;
    let found = 0;
    for (const concept of concepts) {
      const versions = [...concept.querySelectorAll(".version")];
      for (const version of versions) {
        version.hidden = (model && version.dataset.model !== model) || (kind && version.dataset.kind !== kind) || false;
      }
      const fits = words.every((word) => concept.dataset.text.includes(word));
      const shown = fits && (!(model || kind) || versions.some((version) => !version.hidden));
      concept.hidden = tiles.get(concept.dataset.concept).hidden = !shown;
      found += shown;
    }
    document.getElementById("found").textContent = `${found} of ${concepts.length} shown`;
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();

  if (!navigator.clipboard) return;
  for (const text of document.querySelectorAll("pre[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    text.before(button);
  }
})();

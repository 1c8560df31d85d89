// Shows the items that match the form, a screenful at a time: by the kind chosen for one comparison, by exact fields,
// and by words in the text.
"use strict";
const STEP = 25;
for (const form of document.querySelectorAll("form.filters")) {
  const list = document.getElementById(form.dataset.list);
  const items = [...list.querySelectorAll(":scope > .item")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const said = form.querySelector("output");
  const more = list.querySelector(".more");
  let limit = STEP;
  const apply = () => {
    const wanted = new FormData(form);
    const words = wanted.get("search").toLowerCase().split(/\s+/).filter(Boolean);
    const fields = [...wanted].filter(([name, value]) => name.startsWith("field-") && value !== "");
    const against = Number(wanted.get("against") ?? 0);
    const kind = wanted.get("kind");
    let matching = 0;
    items.forEach((item, i) => {
      const now = item.dataset.kinds.split("|")[against];
      const matches =
        (kind === "" ? now !== "both right" : now === kind) &&
        fields.every(([name, value]) => item.getAttribute(`data-${name}`) === value) &&
        words.every((word) => texts[i].includes(word));
      item.hidden = !matches || matching >= limit;
      matching += matches;
      const badge = item.querySelector("summary .badge");
      badge.textContent = now;
      badge.className = `badge ${now.replace(" ", "-")}`;
    });
    more.hidden = matching <= limit;
    more.textContent = `Show ${Math.min(STEP, matching - limit)} more`;
    said.textContent = `${matching.toLocaleString("en")} ${matching === 1 ? "matches" : "match"}`;
  };
  form.addEventListener("input", () => { limit = STEP; apply(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += STEP; apply(); });
  apply();
}

// Before and after: the range input that covers a picture moves the line, by pointer, touch or key.

for (const figure of all(".shot")) {
  const stage = find(".stage", figure);
  const line = find("input[type=range]", stage);
  const choice = find("select", figure);
  const flips = find(".flips", figure);
  const place = () => stage.style.setProperty("--at", `${line.value}%`);
  line.addEventListener("input", place);
  place();
  choice.addEventListener("change", () => showTake(figure));
  flips.addEventListener("click", () => {
    press(flips, !pressed(flips));
    showTake(figure);
  });
  find(".zooms", figure).addEventListener("click", () => openZoom(figure));
}

const takeOf = (figure) => {
  const shot = data.shots[Number(figure.dataset.shot)];
  return shot.takes[Number(find("select", figure).value)];
};

function showTake(figure) {
  const take = takeOf(figure);
  const flips = pressed(find(".flips", figure));
  find(".source", figure).src = pictureOf(take.source);
  find(".variant", figure).src = pictureOf(take.variant);
  const map = find(".flip", figure);
  if (flips) map.src = pictureOf(take.flip);
  map.hidden = !flips;
  find(".tag.right", figure).textContent = flips ? "FLIP map" : "variant";
  const scores = take.scores.map(([title, text]) => {
    const pair = element("div");
    pair.append(element("dt", title), element("dd", text));
    return pair;
  });
  find(".scores", figure).replaceChildren(...scores);
}

find("#all-variants")?.addEventListener("change", (event) => {
  for (const figure of all(".shot")) {
    const choice = find("select", figure);
    if (![...choice.options].some((option) => option.value === event.target.value)) continue;
    choice.value = event.target.value;
    if (find(".source", figure).src) showTake(figure);
  }
});

// A page may hold hundreds of pictures: each is shown when it comes near, or is printed.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    near.unobserve(entry.target);
    showTake(entry.target);
  }
}, { rootMargin: "800px" });
all(".shot").forEach((figure) => near.observe(figure));
addEventListener("beforeprint", () => all(".shot").forEach(showTake));

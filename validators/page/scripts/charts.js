// Charts: the mark nearest to the pointer is named, and chosen variants are brought out.

const tip = find("#tip");

for (const drawing of all("svg[data-chart]")) {
  const { labels, points } = data.charts[drawing.dataset.chart];
  const cursor = find(".cursor", drawing);
  drawing.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const shown = chosen();
    let nearest = null;
    let least = 30 ** 2;
    for (const point of points) {
      if (shown.size && !shown.has(String(point[0]))) continue;
      const distance = (point[1] - at.x) ** 2 + (point[2] - at.y) ** 2;
      if (distance < least) [nearest, least] = [point, distance];
    }
    if (!nearest) return hideTip();
    const [series, x, y, label, text] = nearest;
    cursor.setAttribute("cx", x);
    cursor.setAttribute("cy", y);
    tip.replaceChildren(element("b", data.variants[series].variant), element("span", labels[label]), element("span", text));
    tip.hidden = false;
    const right = event.clientX + tip.offsetWidth + 24 > innerWidth;
    tip.style.left = `${Math.max(4, event.clientX + (right ? -tip.offsetWidth - 12 : 14))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4))}px`;
  });
  drawing.addEventListener("pointerleave", hideTip);

  function hideTip() {
    tip.hidden = true;
    cursor.setAttribute("cx", -20);
  }
}

function chosen() {
  return new Set(all(".legend button").filter(pressed).map((button) => button.dataset.series));
}

for (const button of all(".legend button")) {
  button.addEventListener("click", () => {
    press(button, !pressed(button));
    const shown = chosen();
    for (const mark of all("svg [data-series]")) {
      mark.classList.toggle("dim", shown.size > 0 && !shown.has(mark.dataset.series));
    }
  });
}

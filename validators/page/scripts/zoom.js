// The enlarged picture. Its pane scrolls; dragging with the mouse moves it, too.

const zoom = find("#zoom");
let zoomSteps = [1, 2, 4, 8];
let zoomStep = 0;

function openZoom(figure) {
  const take = takeOf(figure);
  find("#zoom-title").textContent = find(".prompt", figure).textContent;
  for (const which of ["source", "variant", "flip"]) find(`.${which}`, zoom).src = pictureOf(take[which]);
  // Not `width`, which is that on the screen.
  const [width, height] = ["width", "height"].map((side) => Number(find(".source", figure).getAttribute(side)));
  const stage = find(".stage", zoom);
  stage.style.setProperty("--wide", width);
  stage.style.setProperty("--high", height);
  zoom.showModal();
  const pane = find(".pane", zoom);
  const fits = Math.min(pane.clientWidth / width, pane.clientHeight / height);
  // Whole steps keep the pixels of a small picture square and alike.
  zoomSteps = [...new Set([Math.max(fits < 1 ? fits : Math.floor(fits), 0.1), 1, 2, 4, 8, 16])].sort((a, b) => a - b);
  zoomStep = zoomSteps.indexOf(fits < 1 ? fits : Math.floor(fits));
  if (zoomStep < 0) zoomStep = 0;
  showPart("split");
  resize();
}

function resize() {
  const scale = zoomSteps[zoomStep];
  find(".stage", zoom).style.setProperty("--scale", scale);
  find("output", zoom).textContent = `${Math.round(100 * scale)} %`;
  for (const button of all("[data-zoom]", zoom)) {
    button.disabled = zoomSteps[zoomStep + Number(button.dataset.zoom)] === undefined;
  }
}

function showPart(part) {
  for (const button of all("[data-show]", zoom)) press(button, button.dataset.show === part);
  find(".stage", zoom).dataset.part = part;
  find(".flip", zoom).hidden = part !== "flip";
  find(".split", zoom).classList.toggle("off", part !== "split");
}

if (zoom) {
  const pane = find(".pane", zoom);
  const line = find(".split input", zoom);
  const place = () => find(".stage", zoom).style.setProperty("--at", `${line.value}%`);
  line.addEventListener("input", place);
  place();
  for (const button of all("[data-show]", zoom)) button.addEventListener("click", () => showPart(button.dataset.show));
  for (const button of all("[data-zoom]", zoom)) {
    button.addEventListener("click", () => {
      // What is in the middle stays there.
      const [x, y] = [pane.scrollLeft + pane.clientWidth / 2, pane.scrollTop + pane.clientHeight / 2];
      const before = zoomSteps[zoomStep];
      zoomStep += Number(button.dataset.zoom);
      resize();
      const grown = zoomSteps[zoomStep] / before;
      pane.scrollTo(x * grown - pane.clientWidth / 2, y * grown - pane.clientHeight / 2);
    });
  }
  pane.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && event.buttons === 1) pane.scrollBy(-event.movementX, -event.movementY);
  });
}

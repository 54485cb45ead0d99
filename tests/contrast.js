// All visible text whose contrast is below WCAG's AA: 4.5, or 3 for large text.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  function channels(colour) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  }
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  function luminance(colour) {
    const [red, green, blue] = colour.map((level) => {
      const share = level / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }
  function background(node) {
    const layers = [];
    for (let each = node; each; each = each.parentElement) {
      const layer = channels(getComputedStyle(each).backgroundColor);
      layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255]);
  }
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE", "NOSCRIPT", "TITLE", "DESC", "title", "desc"].includes(node.tagName)) continue;
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || node.closest(":disabled")) continue;
    const style = getComputedStyle(node);
    const below = background(node);
    const colour = node instanceof SVGElement ? style.fill : style.color;
    const [first, second] = [luminance(over(channels(colour), below)), luminance(below)];
    const ratio = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push(`${node.className || node.tagName}: ${ratio.toFixed(2)} "${node.textContent.trim().slice(0, 30)}"`);
  }
  return [...new Set(poor)].slice(0, 20);
})()

// The blind test. While it is played, nothing in the page says which picture is which: equal sizes,
// numbers for names, and an order from the browser's source of real randomness.

const start = find("#start");
const play = find("#play");
const whole = find("#whole");
let game = null;

function below(limit) {
  // Rejection keeps every outcome equally likely.
  const [value] = crypto.getRandomValues(new Uint32Array(1));
  const rest = 2 ** 32 % limit;
  return value < 2 ** 32 - rest ? value % limit : below(limit);
}

function shuffled(items) {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = below(last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

// Every variant comes up equally often, give or take one, and no picture again before it must.
function planRounds(mode, variants, rounds) {
  const decks = new Map(variants.map((variant) => [variant, []]));
  const seen = new Map();
  const plan = [];
  let turn = [];
  while (plan.length < rounds) {
    if (!turn.length) turn = shuffled(variants);
    const variant = turn.pop();
    if (!decks.get(variant).length) {
      decks.set(variant, shuffled(data.shots.keys()).filter((shot) => data.shots[shot].takes[variant]));
    }
    const deck = decks.get(variant).sort((a, b) => (seen.get(a) ?? 0) - (seen.get(b) ?? 0));
    const shot = deck.shift();
    seen.set(shot, (seen.get(shot) ?? 0) + 1);
    plan.push(deal(mode, variant, shot));
  }
  return shuffled(plan);
}

function deal(mode, variant, shot) {
  const take = data.shots[shot].takes[variant];
  const { source, variant: drawn } = take;
  if (mode === "pairs") {
    const cards = shuffled([source, drawn].map((picture, index) => ({ picture, answer: index === 0 })));
    return { variant, shot, cards };
  }
  const [odd, other] = below(2) ? [source, drawn] : [drawn, source];
  const cards = shuffled([odd, other, other].map((picture, index) => ({ picture, answer: index === 0 })));
  return { variant, shot, cards };
}

function showRound() {
  const { plan, answers, mode } = game;
  const round = plan[answers.length];
  find("#place").textContent = `Round ${answers.length + 1} of ${plan.length}`;
  find("#question").textContent = mode === "pairs" ? "Which is the original?" : "Which is the odd one?";
  find(".prompt", play).textContent = data.shots[round.shot].prompt;
  find(".picks", play).dataset.mode = mode;
  find(".picks", play).replaceChildren(...round.cards.map((card, index) => pick(card, index)));
  find("#confirm").disabled = true;
  find("#confirm").textContent = answers.length + 1 === plan.length ? "Finish" : "Next";
  find("#question").focus();
}

function pick(card, index) {
  const button = element("button", "", "pick");
  button.type = "button";
  press(button, false);
  const image = element("img");
  image.src = pictureOf(card.picture);
  image.alt = `Picture ${index + 1}`;
  image.draggable = false;
  button.append(image, element("span", String(index + 1)));
  button.addEventListener("click", () => choose(index));
  return button;
}

function choose(index) {
  all(".pick", play).forEach((button, place) => press(button, place === index));
  find("#confirm").disabled = false;
}

function confirmRound() {
  const picked = all(".pick", play).findIndex(pressed);
  if (picked < 0) return;
  const { plan, answers } = game;
  answers.push(plan[answers.length].cards[picked].answer);
  if (answers.length < plan.length) showRound();
  else play.close();
}

if (start) {
  const variants = () => all("[name=variant]:checked", start).map((box) => Number(box.value));
  const advise = () => {
    const form = new FormData(start);
    const [mode, rounds, count] = [form.get("mode"), Number(form.get("rounds")), variants().length];
    const enough = enoughRounds(data.chance[mode]);
    const all_ = rounds < enough
      ? `${rounds} rounds of ${mode} say little: it takes ${enough} to notice somebody who sees the difference every second time.`
      : `${rounds} rounds of ${mode} are enough to say something about all of it together.`;
    const each = count > 1 ? ` For each of ${count} variants on its own it takes ${count * enough}.` : "";
    const fits = find("#rounds").checkValidity();
    find("#enough").textContent = !count ? "Choose a variant." : fits ? all_ + each : "Choose 1 to 1000 rounds.";
    find(".main", start).disabled = !count || !fits;
  };
  start.addEventListener("input", advise);
  for (const button of all("[data-all]", start)) {
    button.addEventListener("click", () => {
      for (const box of all("[name=variant]", start)) box.checked = button.dataset.all === "true";
      advise();
    });
  }
  advise();
  start.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = new FormData(start);
    const mode = form.get("mode");
    game = { mode, plan: planRounds(mode, variants(), Number(form.get("rounds"))), answers: [] };
    find("#score").hidden = true;
    play.showModal();
    showRound();
  });
  find("#confirm").addEventListener("click", confirmRound);
  find("#stop").addEventListener("click", () => play.close());
  play.addEventListener("keydown", (event) => {
    const index = Number(event.key) - 1;
    if (index >= 0 && index < all(".pick", play).length) {
      choose(index);
      find("#confirm").focus();
    }
    if (event.key === "Enter" && !["stop", "whole"].includes(event.target.id)) {
      // Else Enter would only choose the picture that has the focus.
      event.preventDefault();
      confirmRound();
    }
  });
  play.addEventListener("close", () => {
    // The pictures of the last round are gone before the score says which was which.
    find(".picks", play).replaceChildren();
    if (game.answers.length) showScore();
    else find(".main", start).focus();
  });
}

// Large pictures can be looked at pixel by pixel: all of them show the same part.
if (whole) {
  const picks = find(".picks", play);
  let look = [50, 50];
  const lookAt = (...place) => {
    look = place.map((share) => Math.min(100, Math.max(0, share)));
    picks.style.setProperty("--x", `${look[0]}%`);
    picks.style.setProperty("--y", `${look[1]}%`);
  };
  whole.addEventListener("click", () => {
    press(whole, !pressed(whole));
    picks.classList.toggle("whole", pressed(whole));
  });
  picks.addEventListener("pointermove", (event) => {
    const box = event.target.closest(".pick")?.getBoundingClientRect();
    if (box) lookAt((100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height);
  });
  const moves = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
  play.addEventListener("keydown", (event) => {
    if (!moves[event.key] || !pressed(whole)) return;
    event.preventDefault();
    lookAt(...moves[event.key].map((by, axis) => look[axis] + by));
  });
}

// The score of a blind test, in words and as a file for `fluxconv card --blind-test`.

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

function tally() {
  const { plan, answers } = game;
  const found = new Map();
  answers.forEach((right, index) => {
    const { variant } = plan[index];
    const sum = found.get(variant) ?? { variant, rounds: 0, right: 0 };
    found.set(variant, { variant, rounds: sum.rounds + 1, right: sum.right + right });
  });
  const results = [...found.values()].sort((a, b) => a.variant - b.variant);
  return { results, rounds: answers.length, right: answers.filter(Boolean).length };
}

// What so many right answers mean; never more than they do.
function meaning(right, rounds, mode) {
  const chance = data.chance[mode];
  const [low, high] = wilson(right, rounds);
  if (low > chance) return "You can tell them apart: this is more than luck.";
  if (high < chance) {
    return mode === "pairs"
      ? "You do see a difference, but you take the quantized one for the original."
      : "Fewer than guessing would find: bad luck, or a habit that leads astray.";
  }
  if (rounds < enoughRounds(chance)) return `Too few rounds to say anything: it takes ${enoughRounds(chance)}.`;
  return "This does not show that you can tell them apart: guessing would do as well.";
}

function against(results) {
  if (results.length !== 1) return `${results.length} variants from the original`;
  const { variant, bits } = data.variants[results[0].variant];
  return `${variant} (${bits} bits) from the original`;
}

// Somebody who can tell is told so; and few rounds are not made into a finding.
function headline(results, right, rounds, mode) {
  const chance = data.chance[mode];
  if (wilson(right, rounds)[0] > chance) return `You told ${against(results)} in ${right} of ${rounds} rounds.`;
  if (rounds < enoughRounds(chance)) return `Right in ${right} of ${rounds} rounds, which are too few to say anything.`;
  return `You could not tell ${against(results)} in ${rounds - right} of ${rounds} rounds.`;
}

function showScore() {
  const { mode, plan, answers } = game;
  const { results, rounds, right } = tally();
  const chance = data.chance[mode];
  const score = find("#score");
  const [low, high] = wilson(right, rounds);
  find("h3", score).textContent = headline(results, right, rounds, mode);
  const sentences = [
    `You were right in ${right} of ${rounds}, ${percent(right / rounds)}; guessing is right in ${percent(chance)}. The 95 % interval goes from ${percent(low)} to ${percent(high)}.`,
    meaning(right, rounds, mode),
  ];
  if (answers.length < plan.length) {
    sentences.push(`You stopped after ${rounds} of ${plan.length}: a score at a moment of one's own choice looks better than it is.`);
  }
  find(".says", score).replaceChildren(...sentences.map((text) => element("p", text)));
  find("tbody", score).replaceChildren(...results.map((result) => resultRow(result, mode)));
  score.hidden = false;
  find("h3", score).focus();
}

function resultRow({ variant, rounds, right }, mode) {
  const row = element("tr");
  const [low, high] = wilson(right, rounds);
  const name = element("th");
  name.scope = "row";
  name.append(element("bdi", data.variants[variant].variant));
  row.append(
    name,
    element("td", data.variants[variant].bits, "number"),
    element("td", `${right} of ${rounds}`, "number"),
    element("td", `${percent(low)} to ${percent(high)}`),
    element("td", meaning(right, rounds, mode)),
  );
  return row;
}

function record() {
  const { results, rounds, right } = tally();
  const shown = game.plan.slice(0, rounds).map((round) => data.shots[round.shot].prompt);
  return {
    kind: "fluxconv-blind-test",
    format_version: 1,
    page_version: data.page_version,
    date: new Date().toISOString(),
    reference: data.reference,
    mode: game.mode,
    planned: game.plan.length,
    rounds,
    right,
    prompts: [...new Set(shown)],
    results: results.map((result) => ({
      variant: data.variants[result.variant].variant,
      manifest_sha256: data.variants[result.variant].manifest_sha256,
      rounds: result.rounds,
      right: result.right,
    })),
  };
}

find("#save")?.addEventListener("click", () => {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(record(), null, 2)}\n`], { type: "application/json" }));
  link.download = `blind-test-${new Date().toISOString().slice(0, 10)}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
});
find("#again")?.addEventListener("click", () => {
  find("#score").hidden = true;
  find(".main", start).focus();
});

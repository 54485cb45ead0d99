// The interval of a share of right answers; `validators/blind_test.py` computes the same.

const Z = 1.959963984540054; // the normal distribution's 97.5 % quantile

function wilson(right, rounds) {
  const share = right / rounds;
  const weight = Z ** 2 / rounds;
  const middle = (share + weight / 2) / (1 + weight);
  const half = Math.sqrt(share * (1 - share) * weight + weight ** 2 / 4) / (1 + weight);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

// The rounds that it takes to notice somebody who sees the difference every second time and
// guesses otherwise: fewer say nothing, however they end.
function enoughRounds(chance) {
  let rounds = 1;
  while (wilson(((1 + chance) / 2) * rounds, rounds)[0] <= chance) rounds += 1;
  return rounds;
}

// Tables sorted by any column: unknown values stay at the end, whichever way it is sorted.

for (const table of all("table.sortable")) {
  const headings = all("thead tr:last-child th", table);
  headings.forEach((heading, column) => {
    find("button", heading).addEventListener("click", () => sort(table, headings, heading, column));
  });
}

function sort(table, headings, heading, column) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const each of headings) each.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numeric = heading.classList.contains("number");
  const order = (row) => row.cells[column]?.dataset.order ?? "";
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((first, second) => {
    const [a, b] = [order(first), order(second)];
    if (a === "" || b === "") return (a === "") - (b === "");
    const way = numeric ? Math.sign(Number(a) - Number(b)) || 0 : a.localeCompare(b, "en", { numeric: true });
    return down ? -way : way;
  });
  body.append(...rows);
}

// Tables sort by a click on a head, and long ones have a field that hides the rows without a text.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim().replace("−", "-").replaceAll(",", "");
    const number = parseFloat(text.replace(/^[≥≤] /, ""));
    return Number.isFinite(number) ? number : text;
  };
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? 1 : -1;
  heads.forEach((head, column) => {
    const sort = () => {
      const falls = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => (falls ? -1 : 1) * order(key(a, column), key(b, column)));
      body.append(...rows);
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
  if (body.rows.length < 8) continue;
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = field.ariaLabel = "rows that contain …";
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.parentElement.before(field);
}

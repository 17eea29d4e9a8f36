// Tables that keep their table roles for screen readers when a phone shows each row as a block.

import { attribute, h, keyed, text } from "./dom.js";

export class Table {
  // columns: [{label, cell(element, item), numeric, sort(item)}]; the first names the row.
  constructor(parent, { caption, columns, keyOf, scroll = false }) {
    this.columns = columns;
    this.keyOf = keyOf;
    this.order = null; // {column, descending}
    this.heads = columns.map((column) => this.head(column));
    this.body = h("tbody", { role: "rowgroup" });
    this.table = h(
      "table",
      { class: "rows", role: "table" },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...this.heads)),
      this.body,
    );
    this.empty = h("p", { class: "empty", hidden: true });
    const region = scroll ? { class: "scroll", role: "group", "aria-label": `${caption}, scrollable`, tabindex: "0" } : { class: "scroll" };
    this.region = h("div", region, this.table);
    parent.append(this.region, this.empty);
  }

  head(column) {
    const cell = h("th", { scope: "col", role: "columnheader", class: column.numeric ? "n" : null });
    if (!column.sort) {
      cell.append(column.label);
      return cell;
    }
    const button = h("button", { type: "button", class: "sort" }, column.label);
    button.addEventListener("click", () => {
      const again = this.order?.column === column;
      this.order = again && this.order.descending !== Boolean(column.numeric) ? null : { column, descending: again ? !this.order.descending : Boolean(column.numeric) };
      this.heads.forEach((head, index) => {
        const ours = this.order && this.columns[index] === this.order.column;
        attribute(head, "aria-sort", ours ? (this.order.descending ? "descending" : "ascending") : null);
      });
      this.draw(this.items, this.emptyText);
    });
    cell.append(button);
    return cell;
  }

  draw(items, emptyText) {
    this.items = items;
    this.emptyText = emptyText;
    this.region.hidden = !items.length;
    this.empty.hidden = Boolean(items.length);
    text(this.empty, emptyText);
    keyed(
      this.body,
      this.sorted(items),
      this.keyOf,
      () =>
        h(
          "tr",
          { role: "row" },
          ...this.columns.map((column, index) =>
            index
              ? h("td", { role: "cell", "data-label": column.label, class: column.numeric ? "n" : column.tight ? "tight" : null })
              : h("th", { scope: "row", role: "rowheader" }),
          ),
        ),
      (row, item) => this.columns.forEach((column, index) => column.cell(row.children[index], item)),
    );
  }

  sorted(items) {
    if (!this.order) return items;
    const { column, descending } = this.order;
    const value = (item) => column.sort(item) ?? -Infinity;
    const sign = descending ? -1 : 1;
    return [...items].sort((one, other) => sign * (value(one) < value(other) ? -1 : value(one) > value(other) ? 1 : 0));
  }
}

// The panels below the three stages: distributions, partitions, polls, storage, errors, failures.

import { Bars } from "./charts.js";
import { attribute, byId, facts, h, s, text } from "./dom.js";
import * as format from "./format.js";
import * as model from "./model.js";
import { Table } from "./table.js";

const REASONS = { ok: "ok", failing: "failing", budget: "stretched", stale: "stale", disabled: "off", unsupported: "not supported" };
const REASON_TONES = { ok: "ok", failing: "bad", budget: "warn", stale: "bad", disabled: "idle", unsupported: "idle" };
const REFERENCES = { published: "published", rows: "from rows", newest_seen: "newest seen" };
const BASES = { tq_metrics: "TransferQueue's metrics", storage: "storage", clients: "clients" };
const MANY = 8; // above this number of partitions the filter is shown

const cellText = (value) => (cell, item) => text(cell, value(item));

function badge(cell, word, tone) {
  if (!cell.firstElementChild) cell.append(h("span", { class: "badge" }));
  text(cell.firstElementChild, word);
  attribute(cell.firstElementChild, "data-tone", tone);
}

export class Panels {
  constructor({ choose }) {
    this.choose = choose;
    this.lags = new Bars(byId("lags"), { caption: "Groups by lag", label: "Lag", value: "Groups" });
    this.versions = new Bars(byId("versions"), { caption: "Groups by weight version", label: "Version", value: "Groups" });
    this.residence = new Bars(byId("residence"), { caption: "Departed groups by time in the queue", label: "At most", value: "Groups" });
    this.partitions = this.partitionTable();
    this.sources = new Table(byId("sources"), { caption: "Polls", keyOf: (one) => one.source, columns: this.sourceColumns() });
    this.tasks = new Table(byId("tasks"), { caption: "Samples and tasks", scroll: true, keyOf: (one) => JSON.stringify([one.partition, one.task]), columns: taskColumns() });
    this.storage = new Table(byId("storage"), { caption: "Storage units", scroll: true, keyOf: (one) => String(one.index), columns: storageColumns(() => this) });
    this.errors = new Table(byId("errors"), {
      caption: "Errors by operation and type",
      keyOf: (one) => `${one.operation} ${one.error_type}`,
      columns: [
        { label: "Operation", tight: true, cell: cellText((one) => one.operation) },
        { label: "Type", tight: true, cell: cellText((one) => one.error_type) },
        { label: "Count", numeric: true, cell: cellText((one) => format.count(one.count)) },
      ],
    });
    this.failures = new Table(byId("failures"), {
      caption: "Recent failures",
      scroll: true,
      keyOf: (one) => `${one.source} ${one.first_at} ${one.detail}`,
      columns: [
        { label: "When", cell: (cell, one) => this.when(cell, one) },
        { label: "Operation", tight: true, cell: cellText((one) => one.operation) },
        { label: "Type", tight: true, cell: cellText((one) => one.error_type) },
        { label: "Reason", cell: cellText((one) => format.visible(one.detail)) },
        { label: "Times", numeric: true, cell: cellText((one) => format.count(one.count)) },
      ],
    });
    this.changes = new Table(byId("changes"), {
      caption: "State changes",
      scroll: true,
      keyOf: (one) => `${one.at} ${one.state}`,
      columns: [
        { label: "When", cell: (cell, one) => text(cell, format.at(one.at, this.now)) },
        { label: "State", cell: (cell, one) => badge(cell, model.STATES[one.state].word, model.STATES[one.state].tone) },
        { label: "Reason", cell: cellText((one) => (one.detail ? format.visible(one.detail) : "")) },
      ],
    });
  }

  draw(view) {
    this.now = view.now;
    this.view = view;
    this.drawDistributions(view);
    this.drawPartitions(view);
    this.drawTasks(view);
    this.drawHealth(view);
    this.drawFailures(view);
    this.fold(view);
  }

  // A panel without anything to show is named at the end of the page, with the reason.
  fold({ snapshot, live, histories, scope, lagsInScope }) {
    const unknown = live.up ? "no partition is listed" : "not known now";
    const past = model.hasPast(histories);
    const left = model.count(model.flowOf(live, scope)?.residence);
    const entries = [
      ["Staleness", "lag-panel", lagsInScope || past ? null : unknown],
      ["Groups by lag", "lags-panel", lagsInScope ? null : unknown],
      ["Groups by weight version", "versions-panel", model.versions(live, scope)?.length ? null : lagsInScope ? "no groups" : unknown],
      ["Time in the queue", "residence-panel", left ? null : "no group has left since the exporter started"],
      ["Partitions", "partitions-panel", model.partitionRows(snapshot).length ? null : model.isListed(live) ? "TransferQueue has none" : unknown],
      ["Storage units", "storage-panel", snapshot.storage.length ? null : storageEmpty(snapshot)],
      ["Errors", "errors-panel", snapshot.errors.length ? null : "none since the exporter started"],
      ["Recent failures", "failures-panel", !histories.some(Boolean) || histories.find(Boolean).failures.length ? null : "none since the exporter started"],
      ["Generation, queue and training", "path", byId("path").hidden ? unknown : null],
    ];
    for (const [, panel, reason] of entries) byId(panel).hidden = reason !== null;
    byId("folded-panel").hidden = entries.every(([, , reason]) => reason === null);
    facts(byId("folded"), entries.map(([title, , reason]) => [title, reason]));
  }

  when(cell, one) {
    const last = format.at(one.at, this.now);
    text(cell, one.count > 1 ? `${format.at(one.first_at, this.now)} to ${last}` : last);
  }

  drawDistributions({ live, scope, lagsInScope }) {
    const groups = (value) => format.count(value);
    this.lags.draw((lagsInScope?.counts ?? []).map(([bucket, value]) => ({ label: bucket, value, text: groups(value), tone: bucket === "unknown" ? "muted" : "lag" })));
    text(byId("lags-note"), lagsInScope ? "versions behind the reference" : unknownNote(live));
    const versions = model.versions(live, scope);
    this.versions.draw((versions ?? []).map(([label, value]) => ({ label, value, text: groups(value), tone: /^-?\d+$/.test(label) ? "lag" : "muted" })));
    text(byId("versions-note"), versions ? (versions.length ? "newest first" : "no groups") : unknownNote(live));
    const residence = model.flowOf(live, scope)?.residence;
    const left = model.count(residence);
    const rows = left ? residence.counts.map((value, index) => ({ label: bound(residence.bounds, index), value, text: groups(value), tone: "out" })) : [];
    const last = rows.reduce((found, row, index) => (row.value ? index : found), -1);
    this.residence.draw(rows.slice(0, Math.max(last + 1, Math.min(rows.length, 6))));
    const mean = left ? format.span(residence.sum / left) : null;
    text(byId("residence-note"), mean ? `${groups(left)} groups left since the start · mean ${mean}` : "no group has left since the start");
  }

  partitionTable() {
    const state = (name) => ({
      label: name[0].toUpperCase() + name.slice(1),
      numeric: true,
      sort: (part) => part.groups[name],
      cell: cellText((part) => format.count(part.groups[name])),
    });
    const figure = (label, key, show = format.count) => ({ label, numeric: true, sort: (part) => part[key], cell: cellText((part) => show(part[key])) });
    const rate = (label, column) => ({ label, numeric: true, sort: (part) => this.rate(part, column), cell: cellText((part) => format.rate(this.rate(part, column))) });
    const filter = h("input", { type: "search", id: "filter", placeholder: "Filter by name", "aria-label": "Filter partitions by name", hidden: true });
    filter.addEventListener("input", () => this.drawPartitions(this.view));
    byId("partitions-note").after(filter);
    this.filter = filter;
    return new Table(byId("partitions"), {
      caption: "Partitions",
      scroll: true,
      keyOf: (part) => part.partition,
      columns: [
        { label: "Partition", sort: (part) => part.partition, cell: (cell, part) => this.partitionName(cell, part) },
        { label: "Role · tags", tight: true, cell: cellText((part) => [part.role, part.convention && format.visible(part.convention)].filter(Boolean).join(" · ")) },
        { label: "Readable", cell: (cell, part) => readable(cell, part.status) },
        { label: "Last minutes", cell: (cell, part) => this.spark(cell, part) },
        ...model.GROUP_STATES.map(state),
        { label: "Keys", numeric: true, sort: (part) => part.estimate?.keys ?? part.keys, cell: cellText((part) => this.keys(part)) },
        figure("Size", "size_bytes", format.bytes),
        figure("Newest", "newest_version"),
        figure("Max lag", "staleness_max"),
        figure("Mean lag", "staleness_mean", (value) => format.decimal(value, 2)),
        { label: "Reference", tight: true, cell: cellText((part) => (part.reference ? `${part.reference_version} ${REFERENCES[part.reference]}` : format.UNKNOWN)) },
        { label: "Oldest", numeric: true, sort: (part) => oldestAge(part, this.now), cell: cellText((part) => format.span(oldestAge(part, this.now))) },
        rate("In/s", "arrived"),
        rate("Out/s", "departed"),
        { label: "Listed", numeric: true, cell: cellText((part) => (part.listed_at === null ? "never" : format.ago(this.now - part.listed_at))) },
      ],
    });
  }

  // The keys of the last listing; while that is old, an estimate with its basis and age.
  keys({ keys, estimate }) {
    if (!estimate) return format.count(keys);
    return `about ${format.count(estimate.keys)}, from ${BASES[estimate.basis]}, ${format.ago(this.now - estimate.at)}`;
  }

  partitionName(cell, part) {
    if (!cell.firstElementChild) {
      const button = h("button", { type: "button", class: "name" }, h("bdi", {}, format.name(part.partition)));
      button.addEventListener("click", () => this.choose(this.view.scope === part.partition ? null : part.partition));
      cell.append(button);
    }
    attribute(cell.firstElementChild, "aria-pressed", String(this.view.scope === part.partition));
    const named = model.heldConditions(this.view.live).filter((one) => one.partitions.includes(part.partition));
    attribute(cell.firstElementChild, "title", ["Show only this partition in the figures above, and its groups below", ...named.map((one) => one.text)].join("\n"));
    attribute(cell.parentElement, "data-tone", part.severity ? model.TONES[part.severity] : null);
  }

  spark(cell, part) {
    const [recent] = this.view.histories;
    const series = recent && model.seriesOf(recent, part.partition);
    if (!cell.firstElementChild) {
      const svg = s("svg", { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, s("path"));
      cell.append(svg);
    }
    attribute(cell.firstElementChild.firstElementChild, "d", series ? sparkPath(recent, series.ready) : "");
  }

  rate(part, column) {
    return model.currentRates(this.view.live, this.view.histories[0], part.partition)[column];
  }

  drawPartitions({ snapshot, live, now }) {
    const partitions = model.partitionRows(snapshot);
    this.filter.hidden = partitions.length <= MANY;
    const wanted = this.filter.value.toLowerCase();
    const shown = partitions.filter((part) => this.filter.hidden || format.name(part.partition).toLowerCase().includes(wanted));
    const empty = partitions.length ? "No partition matches." : model.isListed(live) ? "TransferQueue has no partitions." : "The partitions are not known now.";
    this.partitions.draw(shown, empty);
    const old = !live.up && partitions.length > 0;
    attribute(byId("partitions"), "data-old", old ? "" : null);
    const listed = Math.max(...partitions.map((part) => part.listed_at ?? -Infinity));
    const hidden = partitions.length - snapshot.partitions.length;
    const count = `${snapshot.partitions.length} listed${hidden ? `, ${hidden} not` : ""}`;
    text(byId("partitions-note"), old ? `Not current: as listed at ${format.at(listed, now)}, ${format.ago(now - listed)}` : partitions.length ? `${count} · click a name to show only that partition above` : "");
  }

  drawTasks({ snapshot, live }) {
    const { samples } = snapshot;
    byId("tasks-panel").hidden = !samples.length;
    this.tasks.draw(model.taskRows(snapshot), "");
    attribute(byId("tasks"), "data-old", live.up ? null : "");
    const leftOut = samples.reduce((sum, one) => sum + one.tasks_left_out, 0);
    text(byId("tasks-note"), `what each task has consumed of the samples in a partition${leftOut ? ` · ${format.count(leftOut)} tasks left out` : ""}`);
  }

  sourceColumns() {
    return [
      { label: "Poll", cell: cellText((one) => one.source) },
      { label: "State", cell: (cell, one) => badge(cell, REASONS[one.reason] ?? one.reason, REASON_TONES[one.reason] ?? "idle") },
      { label: "Last success", numeric: true, cell: (cell, one) => this.lastGood(cell, one) },
      { label: "Took", numeric: true, cell: cellText((one) => format.took(one.duration)) },
      { label: "Every", numeric: true, cell: cellText((one) => (one.interval === null ? format.UNKNOWN : format.span(one.interval))) },
    ];
  }

  lastGood(cell, one) {
    text(cell, one.last_success === null ? "never" : format.ago(this.now - one.last_success));
    attribute(cell, "title", one.last_success === null ? null : format.at(one.last_success, this.now));
  }

  drawHealth({ snapshot, live, connected, now, storage }) {
    this.sources.draw(snapshot.sources, "Nothing is polled yet.");
    const stretched = snapshot.sources.find((one) => one.reason === "budget");
    const busy = snapshot.controller_busy_ratio;
    const spent = busy === null ? "" : `this exporter uses ${format.percent(busy)} of the controller's time`;
    text(byId("sources-note"), [spent, stretched ? format.visible(stretched.detail) : ""].filter(Boolean).join(" · "));
    attribute(byId("sources"), "data-old", connected ? null : "");
    this.storage.draw(snapshot.storage, storageEmpty(snapshot));
    attribute(byId("storage"), "data-old", live.up || !snapshot.storage.length ? null : "");
    const polled = model.source(snapshot, "storage")?.last_success;
    const notes = [];
    if (storage.missing) notes.push(`${storage.missing} of ${snapshot.storage.length} not answering`);
    if (snapshot.unlisted_keys) notes.push(`${format.count(snapshot.unlisted_keys)} keys that no partition lists`);
    if (!live.up && snapshot.storage.length) notes.push(`Not current: as of ${format.at(snapshot.last_known?.at ?? polled, now)}`);
    text(byId("storage-note"), notes.join(" · "));
    this.errors.draw(snapshot.errors, "None since the exporter started.");
    text(byId("errors-note"), snapshot.errors.length ? `since the exporter started, ${format.ago(now - snapshot.started_at)}` : "");
    attribute(byId("errors"), "data-old", connected ? null : "");
  }

  drawFailures({ histories, now }) {
    const history = histories.find(Boolean);
    if (!history) return;
    this.failures.draw(history.failures, "None since the exporter started.");
    const [success] = history.successes;
    text(byId("failures-note"), success ? `last success: ${success.source} at ${format.at(success.at, now)}, in ${format.took(success.took)}` : "no poll has succeeded yet");
    this.changes.draw(history.changes, "Nothing yet.");
  }
}

function taskColumns() {
  const share = (value) => (value === null ? format.UNKNOWN : format.percent(value));
  return [
    { label: "Partition", sort: (one) => one.partition, cell: cellText((one) => format.name(one.partition)) },
    { label: "Samples", numeric: true, sort: (one) => one.samples, cell: cellText((one) => format.count(one.samples)) },
    { label: "Task", sort: (one) => one.task, cell: cellText((one) => (one.task === null ? format.UNKNOWN : format.name(one.task))) },
    { label: "Consumed", numeric: true, sort: (one) => one.consumed_ratio, cell: cellText((one) => share(one.consumed_ratio)) },
    { label: "Produced", numeric: true, sort: (one) => one.produced_ratio, cell: cellText((one) => share(one.produced_ratio)) },
    { label: "Decides", cell: cellText((one) => (one.judges ? "depth of the partition" : "")) },
  ];
}

function readable(cell, status) {
  const known = status !== null;
  badge(cell, known ? (status.readable ? "yes" : model.UNREADABLE[status.reason]) : format.UNKNOWN, known ? (status.readable ? "ok" : "warn") : "idle");
}

// One that does not answer is shown with its last figures, which are as old as the third column says.
function storageColumns(panels) {
  const said = (unit) => unit.last_answer ?? unit;
  const figure = (value) => (cell, unit) => {
    text(cell, value(said(unit)));
    attribute(cell, "data-old", unit.last_answer ? "" : null);
  };
  const since = (unit) => (unit.error_type === null ? "" : unit.last_answer ? format.at(unit.last_answer.at, panels().now) : "the start");
  const place = (unit) => model.processes(panels().view.snapshot).units.get(unit.index) ?? { actor: null, node: null, pid: null, host: null };
  return [
    { label: "Unit", cell: (cell, unit) => { text(cell, String(unit.index)); attribute(cell, "title", unit.unit_id); } },
    { label: "State", cell: (cell, unit) => { badge(cell, ...unitState(unit)); attribute(cell, "title", unit.detail ? format.visible(unit.detail) : null); } },
    { label: "No answer since", tight: true, cell: cellText(since) },
    { label: "Keys", numeric: true, cell: figure((unit) => format.count(unit.keys)) },
    { label: "Capacity", numeric: true, cell: figure((unit) => (unit.capacity !== null ? format.count(unit.capacity) : unit.memory_limit_bytes !== null ? format.bytes(unit.memory_limit_bytes) : format.UNKNOWN)) },
    { label: "Used", numeric: true, cell: figure((unit) => (model.fill(unit) !== null ? format.percent(model.fill(unit)) : format.UNKNOWN)) },
    { label: "Memory", numeric: true, cell: figure((unit) => format.bytes(unit.memory_bytes)) },
    { label: "Node", tight: true, cell: (cell, unit) => { text(cell, format.visible(place(unit).host ?? format.UNKNOWN)); attribute(cell, "title", place(unit).node); } },
    { label: "Process", numeric: true, cell: cellText((unit) => String(place(unit).pid ?? format.UNKNOWN)) },
    { label: "Actor id", tight: true, cell: cellText((unit) => format.visible(place(unit).actor ?? format.UNKNOWN)) },
  ];
}

function unitState({ error_type }) {
  if (error_type === null) return ["ok", "ok"];
  return { DataPlaneUnavailable: ["gone", "bad"], DataPlaneTimeout: ["silent", "warn"] }[error_type] ?? ["failing", "bad"];
}

function storageEmpty(snapshot) {
  const polled = model.source(snapshot, "storage");
  if (polled?.reason === "unsupported") return polled.detail;
  if (snapshot.endpoint && !snapshot.endpoint.storage_units?.length && !snapshot.endpoint.store_metrics) return "the discovery record names none";
  return polled?.reason === "disabled" ? "not polled" : "not known now";
}

const unknownNote = (live) => (live.up ? "no partition is listed" : "not known now");

const bound = (bounds, index) => (index < bounds.length ? `≤ ${format.span(bounds[index])}` : `> ${format.span(bounds.at(-1))}`);

function oldestAge(part, now) {
  const created = part.oldest.map((one) => one.created_at);
  return created.length ? Math.max(Math.round(now - Math.min(...created)), 0) : null;
}

function sparkPath(history, values) {
  const top = Math.max(1, ...values.map((value) => value ?? 0));
  let drawing = false;
  const first = history.samples - values.length;
  return values
    .map((value, index) => {
      const known = value !== null && history.state[index] === "found";
      const step = known ? `${drawing ? "L" : "M"}${(((first + index) / (history.samples - 1)) * 100).toFixed(2)} ${(19 - (18 * value) / top).toFixed(2)}` : "";
      drawing = known;
      return step;
    })
    .join("");
}

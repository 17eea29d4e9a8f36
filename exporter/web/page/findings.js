// Judges generation, queue and training. Pure functions of the snapshot and the histories, without access to the page.
// Flow is judged over the partitions that train, all together, and not at all while one of them cannot be read.

import { QUIET_S, TRAINED, UNREADABLE, change, lastFall, pulse, source, storage } from "./model.js";

const NEARLY_FULL = 0.9;
const VERSION_S = 1800; // an unchanged version is odd after this time if the usual time between changes is not known
const LEAST_LAG = 5; // the newest finished group is this many versions behind: new weights do not reach the rollouts
const FRESH_S = 600; // for this long a version that stepped back is a finding
const LONGEST_NAME = 48; // of a group, in characters
const NAMED = 2; // of several unreadable partitions this many are named

// The problems, worst first: [{where, tone, text}]. Empty when groups flow through all three stages.
export function findings(snapshot, histories, now, format) {
  if (!snapshot.up) return [];
  const { trained } = snapshot;
  const found = held(snapshot, now, format);
  if (trained) found.push(...flow(trained, histories, now, format), ...versions(snapshot, histories, now, format));
  const starved = trained && trained.groups.ready < needed(trained);
  return found.sort((one, other) => rank(one, starved) - rank(other, starved));
}

// A step needs this many ready groups, as far as is known.
const needed = (trained) => trained.groups_per_step ?? 1;

const lasting = (one, format) => format.span(Math.round(one.quietFor));

function held(snapshot, now, format) {
  const found = [];
  const { missing, silent, expected, fill } = storage(snapshot);
  if (missing) {
    // A silent unit may be busy, for example with a checkpoint; one that is gone has lost its rows.
    const busy = silent === missing;
    const text = `${missing} of ${expected} storage units ${missing === 1 ? "does" : "do"} not answer${busy ? ": busy or stopped" : ""}`;
    found.push({ where: "queue", tone: busy ? "warn" : "bad", text });
  }
  const metadata = source(snapshot, "metadata");
  const failing = metadata?.reason === "failing" || metadata?.reason === "stale";
  const unread = snapshot.statuses.filter((one) => one.role === "train" && !one.readable && one.reason !== "pending");
  if (!snapshot.trained && unread.length) {
    const text = `generation and training are not judged, since ${unreadable(unread, now, format)}`;
    found.push({ where: "queue", tone: failing ? "bad" : "warn", text });
  } else if (failing) {
    found.push({ where: "queue", tone: "bad", text: `partitions cannot be listed: ${format.visible(metadata.detail || metadata.reason)}` });
  }
  if (fill !== null && fill >= NEARLY_FULL) {
    found.push({ where: "queue", tone: "warn", text: `storage is ${format.percent(fill)} full` });
  }
  const orphaned = snapshot.partitions.reduce((total, part) => total + part.orphaned, 0);
  if (orphaned) {
    const text = `${format.count(orphaned)} taken groups are orphaned: the trainer's version has moved on, and nobody removes them`;
    found.push({ where: "queue", tone: "warn", text });
  }
  return found;
}

function unreadable(unread, now, format) {
  const named = unread.slice(0, NAMED).map((one) => {
    const since = one.listed_at === null ? "never listed" : `last listed ${format.ago(now - one.listed_at)}`;
    return `partition “${format.name(one.partition)}” cannot be read (${UNREADABLE[one.reason]}; ${since})`;
  });
  if (unread.length > NAMED) named.push(`${unread.length - NAMED} more cannot be read`);
  return named.join(", ");
}

function flow(trained, histories, now, format) {
  const { groups } = trained;
  const beat = (column) => pulse(histories, TRAINED, column, now);
  const [arrived, completed, departed] = [beat("arrived"), beat("completed"), beat("departed")];
  const training = groups.taken - trained.orphaned > 0; // orphaned groups are no work in progress
  const enough = groups.ready >= needed(trained);
  const found = [];
  if (departed.quiet && (training || enough)) {
    const what = training ? `${format.count(groups.taken - trained.orphaned)} groups are taken` : `${format.count(groups.ready)} groups are ready`;
    found.push({ where: "training", tone: "warn", text: `${what} and none has left for ${lasting(departed, format)}` });
  }
  const unfinished = groups.uncommitted + groups.incomplete;
  const since = completed.last ?? -Infinity;
  const givenUp = change(histories, TRAINED, "given_up", since) + Math.max(change(histories, TRAINED, "failed", since), 0);
  if (completed.quiet && !arrived.quiet && givenUp >= Math.max(unfinished, 2)) {
    const text = `groups arrive and none has been completed for ${lasting(completed, format)}: ${format.count(givenUp)} failed or were given up`;
    found.push({ where: "generation", tone: "warn", text });
  } else if (completed.quiet && !enough && !training) {
    found.push({ where: "generation", tone: "warn", text: `${short(trained, format)}, and none has been completed for ${lasting(completed, format)}${rest(trained, now, format)}` });
  } else if (arrived.quiet && enough && !training) {
    found.push({ where: "generation", tone: "warn", text: `no group has arrived for ${lasting(arrived, format)}` });
  }
  return found;
}

function short({ groups, groups_per_step: step }, format) {
  if (step === null) return "no group is ready";
  return `the trainer waits for ${format.count(step - groups.ready)} more groups, ${format.count(groups.ready)} of ${format.count(step)} are ready`;
}

// How many groups are unfinished, and which have been for longest. As exporter/terminal/findings.py does.
function rest({ groups, unfinished: oldest }, now, format) {
  const unfinished = groups.uncommitted + groups.incomplete;
  if (!unfinished) return "; no group is unfinished";
  const named = oldest.map((one) => {
    const since = `${format.at(one.created_at, now)} (${format.span(Math.round(now - one.created_at))})`;
    return `“${format.name(cut(one.group_id))}” since ${since}`;
  });
  if (named.length && unfinished > named.length) named.push(`and ${format.count(unfinished - named.length)} more`);
  return `; ${format.count(unfinished)} unfinished${named.length ? ", the oldest: " : ""}${named.join(", ")}`;
}

// Whole characters, as in Python: half of a surrogate pair is no character.
function cut(name) {
  const characters = [...name];
  return characters.length <= LONGEST_NAME ? name : `${characters.slice(0, LONGEST_NAME - 1).join("")}…`;
}

function versions(snapshot, histories, now, format) {
  const { trained, reference, reference_version: version, reference_changed_at: changed } = snapshot;
  const found = [];
  if (version === null) return found;
  const { usual } = pulse(histories, TRAINED, "reference_version", now);
  const departed = pulse(histories, TRAINED, "departed", now);
  const left = change(histories, TRAINED, "departed", changed) - change(histories, TRAINED, "given_up", changed);
  const longest = usual === null ? VERSION_S : Math.max(3 * usual, QUIET_S);
  if (now - changed > longest && !departed.quiet && left >= 2 * needed(trained)) {
    const text = `the trainer's version is still ${version}, unchanged for ${format.span(Math.round(now - changed))}, although ${format.count(left)} groups have left`;
    found.push({ where: "training", tone: "warn", text });
  }
  const made = trained.newest_finished_version;
  const behind = made === null ? 0 : version - made;
  if (reference !== "newest_seen" && behind >= LEAST_LAG) {
    const text = `even the newest finished group is ${behind} versions behind the trainer's version ${version}: new weights do not reach the rollouts`;
    found.push({ where: "training", tone: "warn", text });
  }
  const fall = snapshot.version_regressions ? lastFall(histories, TRAINED, "reference_version") : null;
  if (fall && now - fall.at < FRESH_S) {
    found.push({ where: "training", tone: "warn", text: `the trainer's version stepped back from ${fall.from} to ${fall.to} at ${format.at(fall.at, now)}` });
  }
  return found;
}

// While the trainer lacks groups, missing groups are the first cause; otherwise look elsewhere first.
function rank(finding, starved) {
  if (finding.tone === "bad") return 0;
  if (finding.where === "generation") return starved ? 1 : 4;
  return finding.where === "queue" ? 2 : 3;
}

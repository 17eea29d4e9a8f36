// Formats values as text. Null and undefined are unknown and shown as a dash, never as 0.

export const UNKNOWN = "–";

const number = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? number.format(value) : UNKNOWN);

export function decimal(value, digits = 2) {
  if (!known(value)) return UNKNOWN;
  if (value >= 1000) return number.format(value);
  return String(Number(value.toFixed(value >= 100 ? 0 : value >= 10 ? Math.min(digits, 1) : digits)));
}

// Groups per second, with a fixed number of digits so that a changing value does not jump sideways.
export const rate = (value) => (known(value) ? (value < 100 ? value.toFixed(value < 10 ? 2 : 1) : number.format(value)) : UNKNOWN);

export const percent = (ratio) => (known(ratio) ? `${decimal(ratio * 100, ratio < 0.1 ? 2 : 0)} %` : UNKNOWN);

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1);
  return `${decimal(value / 1024 ** power, 1)} ${units[power]}`;
}

// A short time, as measured: 840 µs, 61 ms, 2.4 s.
export function took(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${decimal(seconds * 1000, 1)} ms`;
  return span(seconds);
}

// A duration in its two largest units: 12.5 s, 3 min 10 s, 2 h 5 min.
export function span(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 59.5 && !Number.isInteger(seconds)) return `${decimal(Math.max(seconds, 0), 1)} s`;
  return wholeSpan(seconds);
}

function wholeSpan(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return join(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return join(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return join(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

const join = (large, largeUnit, small, smallUnit) => `${large} ${largeUnit}${small ? ` ${small} ${smallUnit}` : ""}`;

export const ago = (seconds) => (known(seconds) ? `${wholeSpan(seconds)} ago` : UNKNOWN);

// A time of day; with its date when it is not within the last 20 hours.
export function at(epoch, now) {
  if (!known(epoch)) return UNKNOWN;
  return (Math.abs(now - epoch) < 72000 ? clock : day).format(new Date(epoch * 1000));
}

// A moment with its date, wherever the page is read or printed.
export const date = (epoch) => (known(epoch) ? day.format(new Date(epoch * 1000)) : UNKNOWN);

// Outside text with every character made visible. It may contain anything, even characters that reorder text around it.
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

export const name = (text) => (text === "" ? "(empty name)" : visible(text));

import { generateKeyBetween, generateNKeysBetween } from "fractional-indexing";
// A fixed sequence of random numbers (mulberry32), so that the file can be made again.
let state = 20261126;
const random = (below) => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % below;
};
const one = [], several = [];
for (let list = 0; list < 12; list++) {
  // The last ones begin with keys as the server makes them.
  const keys = list < 8 ? [] : ["i8PzSmTHO3", "i8PzSmTHO4", "i8PzTzzzzz"];
  for (let n = 0; n < 60; n++) {
    // Mostly at one place, so that the keys become long.
    const at = list % 3 === 0 ? random(keys.length + 1) : list % 3 === 1 ? Math.min(1, keys.length) : keys.length - (n % 2 && keys.length ? 1 : 0);
    const low = keys[at - 1] ?? null, high = keys[at] ?? null;
    const key = generateKeyBetween(low, high);
    one.push([low, high, key]);
    keys.splice(at, 0, key);
    if (n % 10 === 9) {
      const count = 1 + random(12);
      several.push([low, high, generateNKeysBetween(low, high, count)]);
    }
  }
}
const line = (x) => "    " + JSON.stringify(x);
console.log(`{\n  "one": [\n${one.map(line).join(",\n")}\n  ],\n  "several": [\n${several.map(line).join(",\n")}\n  ]\n}`);

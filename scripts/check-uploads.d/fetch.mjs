// Sends the requests in the JSON of standard input with fetch, and prints the status or the error of each.
import { text } from "node:stream/consumers";

const { url, size, requests } = JSON.parse(await text(process.stdin));
const body = Buffer.alloc(size, "x");
const results = [];
for (const [, method, path, headers] of requests) {
  try {
    const response = await fetch(url + path, { method, headers, body });
    await response.text();
    results.push(response.status);
  } catch (error) {
    results.push(`${error}: ${error.cause?.code ?? error.cause}`);
  }
}
console.log(JSON.stringify(results));

// The code of docs/sync.md, which a test compares and scripts/check-sync runs.
/** Follows the changes of a user's tasks until `signal` ends it; rejects if a retry is of no use. `getToken` returns a token. */
export async function follow(url, getToken, tasks, { since, onChange = () => {}, signal, silence = 30_000 } = {}) {
  let pause = 3000;
  while (!signal?.aborted) {
    // The server sends at least a comment every 15 seconds. A connection on which nothing comes is lost.
    const connection = new AbortController();
    const end = signal ? AbortSignal.any([signal, connection.signal]) : connection.signal;
    let timer;
    const received = () => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(new Error("nothing was received")), silence);
    };
    try {
      received();
      const headers = { authorization: `Bearer ${await getToken()}` };
      if (since) headers["last-event-id"] = since;
      const response = await fetch(`${url}/tasks/events`, { headers, signal: end });
      if (response.status === 410) {
        since = undefined;
        tasks.clear();
        continue;
      }
      if (!response.ok) {
        throw Object.assign(new Error(`${response.status} ${await response.text()}`), { status: response.status });
      }
      let text = "";
      for await (const piece of response.body.pipeThrough(new TextDecoderStream(), { signal: end })) {
        received();
        text += piece;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const fields = new Map(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
          if (fields.has("retry")) pause = Number(fields.get("retry"));
          if (!fields.has("data")) continue;
          const page = JSON.parse(fields.get("data"));
          for (const { task, deleted } of page.changes) {
            if (task) tasks.set(task.id, task);
            else tasks.delete(deleted);
          }
          since = page.next;
          onChange(page);
        }
      }
    } catch (error) {
      if (signal?.aborted) return;
      // The same request would get the same response.
      if ([400, 403, 404, 422].includes(error.status)) throw error;
      console.warn("the stream has ended:", error);
    } finally {
      clearTimeout(timer);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

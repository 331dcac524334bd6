// Many questions, one at a time: while one is asked only the newest of the others is kept.

/** run(question) is asked one at a time, in order, and not for those that a newer one has replaced. -> ask */
export function newest(run) {
  let waiting = null;
  let busy = false;
  return async question => {
    waiting = question;
    if (busy) return;
    busy = true;
    while (waiting !== null) {
      const next = waiting;
      waiting = null;
      await run(next, () => waiting === null);
    }
    busy = false;
  };
}

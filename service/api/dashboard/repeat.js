// Does work again and again while the page is visible.

/**
 * Call `work` at once and `ms` after each of its ends, whether it failed or not; never twice at the same time. While the
 * page is hidden it is not called, and when the page is shown again, at once. Return a function that ends it.
 */
export function repeat(ms, work) {
  let timer = null;
  let isRunning = false;
  let hasEnded = false;

  async function run() {
    clearTimeout(timer);
    if (isRunning || hasEnded || document.hidden) return;
    isRunning = true;
    try {
      await work();
    } finally {
      isRunning = false;
      if (!hasEnded) timer = setTimeout(run, ms);
    }
  }

  document.addEventListener("visibilitychange", run);
  run();
  return () => {
    hasEnded = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  };
}

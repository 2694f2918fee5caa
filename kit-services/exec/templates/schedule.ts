// @template category=utility
// @template tags=schedule,cron
// @template description=Runs by itself, as its schedule says.
// @template params=expression
// @description Runs by itself
// @schedule {{expression}}
shared.runs = (shared.runs ?? 0) + 1;
console.log("run", shared.runs, new Date().toISOString());
return { runs: shared.runs };

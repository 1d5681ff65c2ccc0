// A model that runs in the reader's browser: fetched when a reader asks for it, and computed in a
// worker, so that the page stays free.

const FROM_FILE =
  "A page that was opened from a file may not load the model: run `make serve`, or any web server.";

// The model's answers. Of requests of a kind that wait, only the latest is kept; the others get null.
class Engine {
  constructor({ port, end }, heard, stopped) {
    Object.assign(this, { port, end, stopped, waiting: new Map(), current: null, closed: false });
    port.onmessage = ({ data }) => (data.loaded === undefined ? this.settle(data) : heard(data));
    port.onerror = () => this.fail("The model has stopped; start it again.");
  }

  // Values are plain: { name: { data: typed array, shape } }. Those that are given stay the caller's.
  run(inputs) {
    return this.ask("run", inputs);
  }

  render(factors) {
    return this.ask("render", factors);
  }

  // { factors or image, modes, heads, salience }: the scene, drawn, and what the model makes of it
  see(given) {
    return this.ask("see", given);
  }

  ask(kind, given) {
    if (this.closed) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.waiting.get(kind)?.resolve(null);
      this.waiting.set(kind, { kind, given, resolve, reject });
      this.next();
    });
  }

  next() {
    if (this.current || !this.waiting.size) return;
    const { kind, given, reject } = (this.current = this.waiting.values().next().value);
    this.waiting.delete(kind);
    try {
      this.port.postMessage({ kind, given });
    } catch (error) {
      reject(error);
      this.settle({});
    }
  }

  settle({ found, error }) {
    const { resolve, reject } = this.current;
    this.current = null;
    if (error) reject(new Error(error));
    else resolve(found);
    this.next();
  }

  fail(message) {
    this.current?.reject(new Error(message));
    this.close();
    this.stopped(message);
  }

  // Nothing that was asked for is answered any more.
  close() {
    if (this.closed) return;
    this.closed = true;
    this.port.onmessage = null;
    for (const request of [this.current, ...this.waiting.values()]) request?.resolve(null);
    this.end();
  }
}

// files: worker, runtime, wasm, graph and renderer, each with name and size, and an address or, in
// a file that carries everything, its bytes as base64 text. progress(loaded, total) counts bytes;
// stopped(message) is told where the engine ends by itself.
export async function startEngine(files, progress = () => {}, stopped = () => {}) {
  const { worker, ...parts } = files;
  if (worker.text === undefined && location.protocol === "file:") throw new Error(FROM_FILE);
  const total = Object.values(parts).reduce((sum, { size }) => sum + size, 0);
  const given = {};
  for (const [part, file] of Object.entries(parts)) given[part] = reachable(file);
  const heard = ({ loaded }) => progress(loaded, total);
  const engine = new Engine(await connect(worker), heard, stopped);
  try {
    await engine.ask("start", given);
  } catch (error) {
    engine.close();
    throw error;
  }
  return engine;
}

// A file as a worker finds it, which knows nothing of the page's address, and in WebKit can't read
// the page's blobs.
function reachable({ text, address, ...file }) {
  const there = text === undefined ? new URL(address, document.baseURI).href : inlined(text);
  return { ...file, address: there };
}

function inlined(text) {
  return `data:text/javascript;base64,${text}`; // the type is for scripts; the others need none
}

// A worker, or, where a file that carries everything may have none, the page itself. Chromium lets
// such a file have a worker of a data address, and none of a blob's.
async function connect({ name, address, text }) {
  if (text === undefined) return inWorker(new URL(address, document.baseURI), name);
  return inWorker(inlined(text), name).catch(() => onPage(inlined(text)));
}

function inWorker(address, name) {
  return new Promise((resolve, reject) => {
    const fail = (reason) => reject(new Error(`The model can't start: ${reason}.`));
    if (typeof Worker === "undefined") return fail("this browser has no workers");
    const worker = new Worker(address, { type: "module" });
    worker.onmessage = () => resolve({ port: worker, end: () => worker.terminate() });
    worker.onerror = () => fail(`${name} was not loaded`);
  });
}

async function onPage(address) {
  const { serve } = await import(address);
  const { port1, port2 } = new MessageChannel();
  serve(port2);
  return { port: port1, end: () => port1.postMessage({ kind: "close" }) };
}

// What computes: it loads the runtime, the model and the renderer, and answers one request after
// the other. A script of its own, which a worker runs, or a page that may have no worker.

const EMPTY = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0); // the smallest WebAssembly module

// The bytes of a file; `count` hears how many have come.
async function bytes({ name, address }, count, packed = false) {
  const answer = await fetch(address).catch(() => null);
  if (!answer) throw new Error(`${name} was not loaded: no server answers.`);
  if (!answer.ok) throw new Error(`${name} was not loaded: the server says ${answer.status}.`);
  const counted = new TransformStream({
    transform(chunk, next) {
      count(chunk.length);
      next.enqueue(chunk);
    },
  });
  let stream = answer.body.pipeThrough(counted);
  if (packed) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer().catch(() => {
    throw new Error(`${name} was not loaded whole.`);
  });
}

async function script({ name, address, size }, count) {
  try {
    const loaded = await import(address);
    count(size);
    return loaded;
  } catch {
    throw new Error(`${name} was not loaded.`);
  }
}

function checkBrowser() {
  try {
    new WebAssembly.Module(EMPTY);
  } catch {
    throw new Error("The model can't start: there is no WebAssembly here, or it is not allowed.");
  }
  if (typeof DecompressionStream === "undefined") {
    throw new Error("The model can't start: this browser is too old for it.");
  }
}

// A failure of the runtime in a sentence; `what` says what it may be where memory was no matter.
function told({ message }, what) {
  if (/memory|alloc|overflow|OOM/i.test(message)) {
    return new Error("There is not enough memory for the model.");
  }
  const [said] = message.split("ERROR_MESSAGE: ").pop().trim().split("\n");
  return new Error(`${what} (${said})`);
}

class Graph {
  static async of(ort, { name }, content) {
    const made = new Graph();
    const options = { executionProviders: ["wasm"], logSeverityLevel: 4 };
    made.ort = ort;
    made.session = await ort.InferenceSession.create(content, options).catch((error) => {
      throw told(error, `${name} is broken, or this browser can't run it`);
    });
    return made;
  }

  // The outputs, as plain values, for inputs that are plain values.
  async run(values) {
    const inputs = {};
    for (const name of this.session.inputNames) {
      if (!values[name]) throw new Error(`The model needs ${name}.`);
      inputs[name] = new this.ort.Tensor(values[name].data, values[name].shape);
    }
    const outputs = await this.session.run(inputs).catch((error) => {
      throw told(error, "The model can't compute this");
    });
    const found = {};
    for (const [name, { data, dims }] of Object.entries(outputs)) {
      found[name] = { data, shape: [...dims] };
    }
    for (const tensor of Object.values({ ...inputs, ...outputs })) tensor.dispose();
    return found;
  }
}

// Load all files at once, and make the graphs, one after the other.
async function start({ runtime, wasm, graph, renderer }, tell) {
  checkBrowser();
  let loaded = 0;
  const count = (more) => tell({ loaded: (loaded += more) });
  const [ort, binary, ...contents] = await Promise.all([
    script(runtime, count),
    bytes(wasm, count, true),
    bytes(graph, count),
    bytes(renderer, count),
  ]);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: binary });
  const graphs = [await Graph.of(ort, graph, contents[0])];
  ort.env.wasm.wasmBinary = undefined; // the runtime is there: its file is not kept
  return [...graphs, await Graph.of(ort, renderer, contents[1])];
}

// Answer what comes through a port: { kind, given } gets { found } or { error }.
export function serve(port) {
  let model, renderer;
  const acts = {
    start: async (files) => {
      [model, renderer] = await start(files, (news) => port.postMessage(news));
    },
    run: (inputs) => model.run(inputs),
    render: (factors) => renderer.run(factors),
    see: async ({ factors, ...rest }) => {
      const drawn = factors ? await renderer.run(factors) : {};
      return { ...drawn, ...(await model.run({ ...rest, ...drawn })) };
    },
    close: async () => {
      for (const graph of [model, renderer]) await graph?.session.release();
    },
  };
  port.onmessage = async ({ data: { kind, given } }) => {
    try {
      const found = await acts[kind](given);
      const buffers = Object.values(found ?? {}).map(({ data }) => data.buffer);
      port.postMessage({ found }, buffers);
    } catch (error) {
      port.postMessage({ error: error.message });
    }
  };
  port.postMessage({ loaded: 0 }); // ready
}

if (typeof WorkerGlobalScope !== "undefined") serve(self);

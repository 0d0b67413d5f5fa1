"""Every knob, its unit, its reason. Other files change only what differs.

[P] the paper states it, [D] our default where nothing is public.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # everything drawn hangs on it
    c.steps = 300  # optimizer steps in all; raise it to go on with a finished run [D]
    c.game = "seirenes"  # seirenes | rlvr (clean tries only: the GRPO baseline)
    c.init_from = ""  # run folder whose newest weights (weights only) to start from
    c.problems_per_step = 64  # questions played a step [D]

    c.model = m = ConfigDict()
    # Hugging Face folder (here or gs://...) or hub id; empty = initialise `shape` (and warm-start
    # the tiny world).
    m.path = ""
    # Compute. Whatever this says, float32 are logits, softmax, router, losses and all sums over
    # tokens; gradients are added up in param_dtype.
    m.dtype = "bfloat16"
    m.param_dtype = "float32"  # master weights and optimizer
    # What the backward pass recomputes: none | dots (all but matrix products) | full (all but each
    # layer's input) | offload (as full, and those inputs wait in the host's memory).
    m.remat = "none"
    m.attention = "auto"  # by platform | xla (reference) | splash (TPU kernel) | cudnn (GPU)
    m.moe = "auto"  # grouped products: by platform | plain (reference) | mosaic (TPU) | triton
    m.balance = 1.0  # experts' balance loss, times the model's own weight for it; 0 = off [D]
    m.replay_routes = True  # training uses the experts that decoding chose [D]
    # Low-rank adapters: they alone are trained and saved, in float32. What they stand on stays as
    # it is, in model.dtype.
    m.lora = ConfigDict()
    m.lora.rank = 0  # of every adapter; 0 = every weight is trained
    m.lora.alpha = 32.0  # an adapter's part is multiplied by alpha / rank [D]
    # Of q, k, v, o, gate, up, down; experts have none: then q,k,v,o.
    m.lora.targets = ("q", "k", "v", "o", "gate", "up", "down")
    m.shape = s = ConfigDict()  # read only where model.path is empty
    s.layers = 3
    s.width = 64
    s.heads = 2
    s.kv_heads = 1
    s.head_dim = 32  # the smallest that common servers load
    s.ff = 256
    s.rope_theta = 10_000.0
    s.tied = True  # output head = embedding

    c.warm_start = w = ConfigDict()  # the tiny world's supervised start; steps 0 = none
    w.steps = 0
    w.batch = 64  # rows of batch.row_tokens a step
    w.lr = 3e-3
    w.seed = 0  # its own seed: runs of other seeds share the start
    w.problems = 20_000  # how many training problems its texts are made of

    c.problems = p = ConfigDict()
    # "tiny" = the embedded world; else a file, folder or pattern (.jsonl, .json, .csv, .parquet;
    # also on gs://), or a data set of the hub as ORG/NAME or hf://datasets/ORG/NAME[@REV]/PATTERN.
    p.path = "tiny"
    p.format = ""  # by its columns | dapo | deepmath | openr1 | math | polaris | plain | gsm8k
    p.question_column = ""  # of a plain file; empty = question, problem or prompt
    p.answer_column = ""  # of a plain file; empty = answer
    p.levels = ()  # problems of these levels alone, as the data set counts them; () = all
    p.decontaminate = ()  # places of benchmarks: what they ask is not trained on
    # A problem goes whose shared 13-grams are above this share of a benchmark question's; 0 = one
    # is enough, set phrases too (docs/data.md).
    p.overlap = 0.0
    p.checkable = True  # drop problems whose answer the verifier cannot read
    p.malformed = 0  # rows that may be unreadable; one more is an error that names its line
    p.mastered_share = 0.05  # chance that a mastered question is drawn again when it comes up [D]

    c.rollouts = r = ConfigDict()
    r.clean = 8  # G1: clean tries a question [D]
    r.hints = 4  # G2: hints a question [D]
    r.hinted = 8  # G3: tries a hint; below 4 the reward is mostly noise [D]

    c.tokens = t = ConfigDict()  # limits, in tokens
    t.prompt = 2048
    t.reasoner = 8192
    t.adversary = 2048  # it thinks first
    t.overlong_buffer = 0  # DAPO's soft penalty over the last so many tokens; 0 = off

    c.prompts = q = ConfigDict()  # ours; the paper's are not public
    q.reasoner = (
        "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
    )
    q.adversary = (
        "Here is a problem:\n{question}\nWrite one short, natural hint that would lead a solver "
        "astray. Do not change the problem and do not state a final answer. Think first, then give "
        "the hint as <hint>...</hint>."
    )
    q.position = "append"  # append | prepend | system: where the hint stands
    q.frame = "hint"  # hint | note | context | bare: how it is introduced
    # Hybrid-thinking chat templates: "true" | "false" | "" = as the template has it by itself.
    q.enable_thinking = ""

    c.adversary = a = ConfigDict()
    a.reward = "clip"  # clip: max(0, drop) [D] | indicator: 1[drop > 0] | linear: drop
    a.margin = 0.0  # a drop counts only above this
    a.policy = "live"  # live | frozen: starting weights write | untrained: no adversary loss

    c.hints = h = ConfigDict()
    h.source = "adversary"  # adversary | shuffled | rule | random | correct
    h.gates = ("tag", "length", "boxed", "leak", "override", "copy")  # () = the bare formula
    h.min_tokens = 10
    h.max_tokens = 512
    h.copy_share = 0.8  # share of the hint's 4-grams found in the question above which it is a copy

    c.streams = f = ConfigDict()
    f.weights = ConfigDict({"clean": 1.0, "adversary": 1.0, "robust": 1.0})  # [D]
    f.groups = ConfigDict({"clean": 0, "adversary": 0, "robust": 0})  # groups a step; 0 = all live
    f.max_age = 2  # steps a group may wait; at most 4
    f.pool_hints = False  # hinted tries compared per hint, or pooled per question
    f.train_hinted = True  # False: hints are trained, hinted tries are not (ablation)
    f.resample_rounds = 0  # dynamic sampling: rounds of fresh questions for dead clean groups

    c.advantage = v = ConfigDict()
    v.kind = "group"  # group | mean (Dr.GRPO) | loo (RLOO) | whiten (REINFORCE++) | hybrid | ema
    v.eps = 1e-6
    v.ema_decay = 0.95  # read by kind = ema

    c.loss = lo = ConfigDict()
    lo.kind = "ppo"  # ppo | gspo | cispo
    lo.clip_low = 0.2
    lo.clip_high = 0.28
    lo.aggregate = "token"  # token | sequence | constant: the denominator inside a stream
    lo.kl = 0.0  # weight of the KL to the starting weights
    lo.kl_kind = "k3"
    lo.entropy = 0.0  # entropy bonus
    lo.rescore = False  # recompute old logprobs with the trainer before the update
    lo.tis_cap = 2.0  # cap of the truncated importance weight trainer/sampler, where rescored

    c.optimizer = o = ConfigDict()
    o.lr = 1e-6
    o.warmup_steps = 10
    o.schedule = "constant"  # constant | cosine | linear (to 0 at `steps`)
    o.weight_decay = 0.1  # not on norms and biases
    o.b1 = 0.9
    o.b2 = 0.95
    o.eps = 1e-8
    o.clip = 1.0  # global gradient norm
    # What both moments are kept in: float32 | bfloat16, rounded to the nearest after each update;
    # 2 bytes a parameter less for each, where memory is short [D]
    o.moments = "float32"

    # A step is not applied where a number is not finite or above its bound; what it would have
    # learnt from is kept in RUN/bad (docs/reliability.md).
    c.numbers = u = ConfigDict()
    u.loss = 1e3  # |mean loss| of a stream in a micro-batch [D]
    u.gradient = 1e3  # global norm, before optimizer.clip [D]
    u.ratio = 1e4  # of a token; under gspo of a sequence [D]
    u.logprob = 100.0  # |logprob| of a drawn token, nats: nothing so unlikely is ever drawn [D]
    u.in_a_row = 3  # such steps in a row end the run with exit code 1 [D]
    u.keep = 2  # the newest of them that are kept, each with the checkpoint it needs [D]
    u.most_mib = 64.0  # MiB of arrays that are kept of one; one micro-batch always is [D]
    # Start-up probe: largest and mean |logprob of the sampler - of the trainer|, nats, of the first
    # step's answers; above either, nothing is learnt [D]
    u.probe_max = 2.0
    u.probe_mean = 0.05

    c.sampler = d = ConfigDict()
    d.slots = 64  # sequences decoded together
    d.chunk = 16  # tokens between two looks of the host
    d.temperature = 1.0
    d.top_k = 0  # 0 = off; training refuses anything else
    d.top_p = 1.0  # training refuses anything else

    c.batch = b = ConfigDict()
    b.row_tokens = 4096  # length of a packed row
    b.rows = 8  # rows of one micro-batch over all devices

    c.mesh = x = ConfigDict()  # devices along each axis; the product is the number of devices
    x.data = 1
    x.fsdp = 1
    x.tensor = 1
    x.expert = 1  # experts, and rows with them
    x.sequence = 1  # positions of a row: context parallelism in training

    c.decode = i = ConfigDict()  # an island: the devices that play a share of the problems
    i.hosts = 1  # processes of an island; more where the model does not fit one's devices
    i.tensor = 1  # devices that hold one copy of the weights in parts (heads, ff, vocabulary) ...
    i.expert = 1  # ... times these, for experts; further copies split the slots

    c.checkpoint = k = ConfigDict()
    k.every = 10  # steps
    k.keep = 3  # newest ones kept, besides the best
    k.keep_every = 0  # and those of every so many steps, for good; 0 = none
    # After a save, while the next steps run, every array is read back and compared with what was
    # saved; False: the host's record alone, where reading is slow or costs (a bucket far away).
    k.verify = True
    k.on_failure = "stop"  # a failed save: stop (exit code 1) | go_on, and say so every time
    # Finished answers are written down as they come; a run that was killed in the middle of a step
    # takes them from there. Worth it where a step takes minutes (docs/reliability.md).
    k.journal = False

    c.preempt = ConfigDict({"grace_s": 25.0})  # seconds from the signal to a saved, closed run

    c.watchdog = n = ConfigDict()  # a wait is overdue (it is told, with all stacks) ...
    n.factor = 10.0  # ... after so many times the median of its own laps in this process, ... [D]
    n.floor_s = 120.0  # ... and never before so many seconds [D]
    n.laps = 3  # laps before there is a median to speak of: the first ones compile [D]
    n.hard_s = 14_400.0  # seconds of one wait that end the process with exit code 75; 0 = never [D]

    c.eval = e = ConfigDict()
    e.every = 20  # steps; 0 = only before and after
    e.problems = 128  # held-out problems in the loop
    e.final_problems = 512  # held-out problems before and after

    c.budget = ConfigDict({"tokens": 0})  # stop when play has generated so many; 0 = no limit

    c.report = z = ConfigDict()
    z.rollouts_per_step = 2  # problems a step whose texts are kept
    z.wandb = ""  # project name; empty = off

    # What looks like reward hacking is said and written, never acted on. Each is pooled over the
    # last steps; an alarm begins beyond its threshold, and is over after a window without it.
    c.alarms = g = ConfigDict()
    g.window = 10  # steps; nothing is said before so many [D]
    g.leaked = 0.2  # share of the hints written that hold the answer, refused or not [D]
    g.passed_leaks = 0.02  # ... of those that the Reasoner saw: no gate may let them through [D]
    g.gate_failures = 0.5  # share of hints refused [D]
    g.duplicates = 0.3  # share of a step's hints that another one of it said before [D]
    g.template = 0.5  # share of a step's hints that open with the same five words [D]
    g.adversary_solves = 0.2  # share of hints with a boxed answer, or an answer in its place [D]
    g.reasoner_hints = 0.05  # share of answers in which a hint is written [D]
    g.unreadable = 0.1  # share of verdicts [D]
    g.timeout = 0.05  # share of verdicts [D]
    g.live = ConfigDict({"clean": 0.02, "adversary": 0.05, "robust": 0.01})  # below; 0 = never [D]
    # Against the mean of the run's first window:
    g.entropy = 0.1  # below this share of it, in either role [D]
    g.longer = 2.0  # mean length above so many times of it [D]
    g.shorter = 0.4  # mean length below this share of it [D]

    c.judge = j = ConfigDict()
    j.workers = 2
    j.deadline_s = 1.0  # CPU seconds an answer may take
    j.memory_gib = 1.0  # a worker

    c.profile = ConfigDict({"steps": ()})  # steps to trace for xprof
    return c.lock()

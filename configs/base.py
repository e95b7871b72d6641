"""Every field of a config and its default; data sets override a few."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rollingq_jax.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
  """Fields with a type and no value (placeholders) are optional."""
  if arg:
    raise UserError(
      "base.py is imported by other configs and takes no argument"
    )
  config = ConfigDict()
  # Seeds parameters, order, corruption, dropout, and the split where a data
  # set has no official one.
  config.seed = 0
  # Order of fusion; AIR is printed for the first.
  config.modalities = ("audio", "visual")
  # classification | regression: of a number, which is the model's one output.
  config.task = "classification"
  # regression: l1 (mean absolute error) | l2 (mean squared error)
  config.regression_loss = "l1"
  # 1 in regression.
  config.num_classes = 10
  # Over all devices and processes.
  config.batch_size = 64
  # Parts that a batch is cut into, whose gradients are added up: less memory,
  # same result, but that dropout draws other numbers, and that batch norm, of
  # resnet18, sees a part at a time.
  config.accumulate_steps = 1
  config.total_epochs = 30
  # Steps between two checks that the loss is finite; each waits for the device.
  config.check_every_steps = 50
  # Whether an epoch's line in metrics.jsonl has the mean norm of each encoder's
  # gradient, before a balance method changes it.
  config.log_gradient_norms = False
  # Keep compiled programs in the user's cache directory.
  config.compilation_cache = True

  # Devices, of all processes, as a grid. Batches are divided over all of them.
  mesh = config.mesh = ConfigDict()
  # Copies of the parameters; -1: as many as the devices make.
  mesh.data = -1
  # Devices that share a copy (FSDP), and of what the optimizer keeps; -1: all.
  mesh.model = 1
  # Arrays of fewer entries are on every device.
  mesh.min_entries = 2**14

  data = config.data = ConfigDict()
  data.name = ""
  # Folder with raw files; unset: what the data set ships.
  data.data_dir = placeholder(str)
  # How the splits of prepared data were made; written by the run, or checked
  # where it is given.
  data.splits = placeholder(str)
  # Whether the validation split is trained on too, once all is chosen. What is
  # said of it is no estimate then.
  data.train_on_validation = False
  # Time steps kept of a sequence; unset: the data set's own choice.
  data.num_frames = placeholder(int)
  # Whether no speaker, or actor, is in two splits.
  data.speaker_disjoint = False
  # av_digits from raw files: whether test is FSDD's own, takes 0 to 4, with
  # MNIST's test images.
  data.official_split = False
  # mosei: whether the modalities are aligned by word, or each has its own rate.
  data.aligned = True
  # manifest: whether its numbers are sentiment in [-3, 3], whose metrics are
  # given besides.
  data.sentiment = False
  # Whether each frame of a clip is cropped and flipped by itself in training,
  # as in the authors' code, or all alike.
  data.crop_each_frame = False
  # Whether prepared frames are cropped and resized by the model, in its step,
  # and the host only decodes them.
  data.resize_on_device = False
  # Height and width that has room for the frames then; larger ones are made
  # smaller.
  data.canvas = (256, 456)
  # Whether padded time steps are masked, or input like any other. A mask goes
  # on telling a recording's length after its sensor has failed.
  data.mask_padding = True
  # tokenizer.json of Hugging Face that makes ids of texts; unset: UTF-8 bytes.
  data.tokenizer = placeholder(str)
  # Of that file; written by the run, or checked where it is given.
  data.tokenizer_sha256 = placeholder(str)
  # Mean and deviation by which features of a modality are standardised; of
  # prepared data those of train, written by the run. Unset: not at all.
  data.standardise = ConfigDict(
    {name: placeholder(tuple) for name in ("audio", "visual", "text")}
  )
  # Shape of one sample of each modality, for what needs it without the data:
  # the data set `synthetic`, the conversion of weights.
  data.shapes = ConfigDict()
  # Samples of each split of `synthetic`.
  data.synthetic_size = 4
  # The data set `tfds:NAME`, by the names of its features; "": it has none.
  tfds = data.tfds = ConfigDict()
  # Waveform [samples], or features [time, features].
  tfds.audio = "audio"
  # An image, or a video.
  tfds.visual = ""
  tfds.label = "label"
  # Speaker or video: what is not divided where a split is cut from train.
  tfds.group = ""
  # Hz of waveforms; unset: what the data set states.
  tfds.sample_rate = placeholder(int)
  # What becomes of waveforms: log_mel | ks | cremad
  tfds.audio_features = "log_mel"
  # Of whole modalities (rollingq_jax/data/noise.py): none | sensor_failure |
  # clean_train | delayed_failure. Of part of them
  # (rollingq_jax/data/partial.py): burst | occlusion | desync.
  data.noise = "none"
  # Whether that is done to training samples too. Off: only the other splits
  # are corrupted, so the model never saw it.
  data.corrupt_train = True
  # burst, occlusion, desync: the share of a modality that is hit is uniform
  # between these two.
  data.corrupt_share = (0.0, 0.75)
  # Probability of each modality of a training sample to be replaced by noise,
  # whatever the protocol; all of them may be.
  data.noise_dropout = 0.0
  # SpecAugment of what encoders of the kinds spectrogram and resnet18 take: the
  # widest bands of the first and the second axis that are hidden in training.
  data.spec_augment = (0, 0)
  # Batches are made of sequences of similar length and cut to one of this many
  # lengths, each compiled once; 1: all have the longest one.
  data.length_buckets = 1
  # Probability of each modality to be missing from a training sample; one at
  # least is left.
  data.modality_dropout = 0.0
  # Classes, by number, that no split has: the analysis of a run tells them from
  # the others. The model keeps their outputs.
  data.held_out_classes = ()
  data.num_threads = 2
  data.prefetch_batches = 8

  model = config.model = ConfigDict()
  # unimodal | sum | concat | late | film | gated | uniform | attention | mult |
  # jmt | mmml
  model.fusion = "attention"
  # Modality that conditions the others in film and gated; unset: the first.
  model.condition = placeholder(str)
  # Computation; parameters, norms, softmax and RollingQ are float32.
  model.dtype = "float32"
  model.width = 768
  model.depth = 4
  model.num_heads = 12
  model.mlp_ratio = 4
  # Of all layer norms. ViT, timm and the authors: 1e-6; Hugging Face: 1e-12.
  model.norm_eps = 1e-6
  # exact | tanh: the original ViT's weights are made for tanh.
  model.gelu = "exact"
  # Kernel of the encoders' attention; unset: ours (models/dot_product.py). xla:
  # JAX's own. cudnn: NVIDIA's fused one, for half precision.
  model.attention_kernel = placeholder(str)
  # What the backward pass computes again instead of keeping it. none |
  # dots: all but the outputs of matrix products | blocks: all but the inputs of
  # blocks.
  model.remat = "none"
  # Compile an encoder's blocks once for all, as a loop: less time to compile.
  model.scan_layers = False
  # MBT: blocks after the encoders' own in which modalities meet in a few
  # tokens; depth 0: none.
  model.bottleneck = ConfigDict()
  model.bottleneck.depth = 0
  model.bottleneck.num_tokens = 4
  model.bottleneck.num_heads = 1
  # How mult, jmt and mmml pool their streams. paper: as their papers do.
  # attention: a class token attends to them, whose query RollingQ can roll.
  model.pool = "paper"
  # mult, jmt, mmml: layers between the modalities.
  model.cross = ConfigDict()
  model.cross.depth = 2
  model.cross.num_heads = 4
  model.cross.dropout = 0.1
  # mult: whether a step is hidden from the steps before it.
  model.cross.future_mask = False
  # jmt, pool paper: of the outputs of a step. linear (FC) | attention
  # (SELF_ATTEN)
  model.cross.readout = "attention"
  model.attention = ConfigDict()
  # attention, uniform: layers over all tokens. All but the last update the
  # tokens too.
  model.attention.depth = 1
  # Each as wide as the tokens.
  model.attention.num_heads = 1
  # On attention weights and after the output projection.
  model.attention.dropout = 0.2
  # Of the fusion's class token at initialisation.
  model.attention.cls_std = 0.02

  # Linear heads on the modalities' class tokens, see
  # rollingq_jax/models/heads.py. As they are here they are probes.
  model.heads = ConfigDict()
  # Whether their losses reach the encoders. late and mmml: in any case.
  model.heads.train_encoders = False
  # Added to the fusion's logits. none | plain: theirs | gated: theirs, weighed
  # by confidence. late: none is plain.
  model.heads.residual = "none"
  # Whether their confidence is added to the scores of class tokens.
  model.heads.gate_attention = False
  # Weight of a confidence in both gates.
  model.heads.tau = 2.0

  rollingq = config.rollingq = ConfigDict()
  # Off: AIR is measured all the same, nothing is rolled.
  rollingq.enabled = True
  # AIR threshold.
  rollingq.beta = 0.2
  # Rotation intensity (sigma in the authors' code).
  rollingq.rho = 0.5
  # Of each head; -1: no limit. Rolling then stops by itself, where AIR stays
  # below beta for good: the adaptive rule.
  rollingq.max_rotations = 3
  # Imbalanced windows in a row that a rotation needs.
  rollingq.patience = 2
  # Several layers: one at a time rolls, the first one first. Off: all may.
  rollingq.progressive = True
  # Windows in a row without a rotation after which the next layer's turn comes,
  # at once when a layer has made all its rotations; unset: patience + 1.
  rollingq.turn_patience = placeholder(int)
  # First epoch, from 0, at whose end a rotation may be made.
  rollingq.start_epoch = 2
  # Steps of a window; unset: one window an epoch.
  rollingq.window_steps = placeholder(int)
  # running: E[q], E[k] over the window's training steps.
  # second_pass: over its samples once more, in evaluation mode, at its end.
  rollingq.means = "running"
  # window: AIR over all of the window. last_batch: its last batch alone (then
  # running means are that batch's too).
  rollingq.air = "window"
  # What the means of a second pass weigh equally: samples, or batches however
  # small the last one is.
  rollingq.mean_over = "samples"
  # True: AIR must exceed beta. False: AIR of exactly beta is enough.
  rollingq.strict_threshold = False
  # Whether the last window, which no training follows, may roll too.
  rollingq.roll_at_end = False
  # plane | procrustes, see rollingq_jax/rotation.py.
  rollingq.method = "plane"

  balance = config.balance = ConfigDict()
  # none | ogm | ogm_ge | pmr, see rollingq_jax/balance/.
  balance.name = "none"
  # Strength: of the modulation (ogm), weight of the prototype loss (pmr).
  balance.alpha = 0.5
  # ogm: encoder: all of an encoder's gradients. conv: convolution kernels.
  balance.scope = "encoder"
  # ogm: first and last epoch with modulation, counted from 0.
  balance.first_epoch = 0
  balance.last_epoch = 1_000_000
  # pmr: of old prototypes.
  balance.momentum = 0.2
  # pmr: of an epoch's batches that prototypes are made of.
  balance.observed_share = 0.1

  optimizer = config.optimizer = ConfigDict()
  # sgd | adam | adamw
  optimizer.name = "sgd"
  optimizer.learning_rate = 1e-3
  optimizer.momentum = 0.9
  optimizer.weight_decay = 0.0
  # kernels: matrices alone. all: every parameter.
  optimizer.decay_mask = "kernels"
  # Largest global gradient norm; 0: no clipping.
  optimizer.clip_norm = 0.0
  # cosine | constant, after the warm-up.
  optimizer.schedule = "cosine"
  optimizer.warmup_epochs = 2.5
  # The schedule is sized for the run's steps but moves on by one more after
  # each epoch; past its end the cosine comes up again.
  optimizer.extra_step_per_epoch = False

  pretrained = config.pretrained = ConfigDict()
  # Weights to start from; unset: random ones.
  pretrained.file = placeholder(str)
  # auto | native | reference | timm | huggingface | augreg | resnet18
  pretrained.format = "auto"
  # Whose encoders get ImageNet weights; (): all that the format fits.
  pretrained.modalities = ()
  # How an RGB kernel becomes one of a single channel. mean: a third of what
  # three equal channels gave. sum: the same.
  pretrained.channels = "mean"
  # Position tables to another grid. bicubic (timm's) | bilinear
  pretrained.resize = "bicubic"
  # Of the file; written by the run, or checked where it is given.
  pretrained.sha256 = placeholder(str)

  checkpoint = config.checkpoint = ConfigDict()
  # Newest ones kept; the best by the selection split is kept besides.
  checkpoint.max_to_keep = 2

  evaluation = config.evaluation = ConfigDict()
  # Parameters that are tested. last: nothing is selected. best: by the
  # accuracy, or the mean absolute error, on the selection split.
  evaluation.checkpoint = "last"
  # Evaluated after each epoch. validation | test: no estimate of what to
  # expect elsewhere is left then; it is only there to follow published runs.
  evaluation.selection_split = "validation"
  # The test split is tested again with one modality mixed with noise.
  evaluation.noise_levels = (0.25, 0.5, 1.0)
  # And again without one modality, where there are several.
  evaluation.missing = True
  # Whether each rotation leaves lines in geometry.jsonl: where keys and query
  # lay before and after it. Costs a few batches twice, at rotations alone.
  evaluation.geometry = True
  # Another data set of the same modalities and shapes, by the names of
  # config.data, that the analysis of a run tells its own from; unset: none.
  evaluation.other_data = placeholder(str)
  evaluation.other_data_dir = placeholder(str)
  return config

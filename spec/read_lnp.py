#!/usr/bin/env python3
"""A second, independent reader of the linked neuron pack, made from lnp-v1.md alone and in its order.

Usage: read_lnp.py PACK [--index-only]
Checks what a reader must reject (R1 to R53) and, without --index-only, the rest of full verification (V1 to V3).
Prints the pack as JSON (exit status 0), or one line `PACK: RULE: reason` on stderr (1); a usage error is 2.
"""
import array, itertools, json, math, os, re, struct, sys, zlib  # noqa: E401
from collections import namedtuple

# 2 Conventions
class Refused(Exception):
    """The pack breaks a rule."""

def refuse_if(broken, rule, reason):
    if broken:
        raise Refused(f"{rule}: {reason}")

def round_up(v, b):
    return (v + b - 1) // b * b

def read_at(file, offset, count):
    """`count` bytes from a file offset. The caller has checked that they lie within the file."""
    file.seek(offset)
    data = file.read(count)
    refuse_if(len(data) != count, "R7", "the file became shorter while it was read")
    return data

def read_u32s(file, offset, n):
    values = array.array("I", read_at(file, offset, 4 * n))
    if sys.byteorder == "big":
        values.byteswap()
    return values

# 4 Superblock
SUPERBLOCK = struct.Struct("<8sHHIQQQQII4036sI")
Superblock = namedtuple("Superblock", "magic version_major version_minor block_bytes feature_compat feature_incompat"
                        " file_bytes index_bytes section_count section_table_crc reserved superblock_crc")

def read_superblock(file):
    length = file.seek(0, os.SEEK_END)
    refuse_if(length < SUPERBLOCK_BYTES, "R1", f"the file has {length} bytes")
    data = read_at(file, 0, SUPERBLOCK_BYTES)
    sb = Superblock._make(SUPERBLOCK.unpack(data))
    b = sb.block_bytes
    refuse_if(sb.magic != b"\x89LNP\r\n\x1a\n", "R2", "the magic is another: not a pack")
    refuse_if(sb.version_major != 1, "R3", f"version_major is {sb.version_major}")
    refuse_if(sb.superblock_crc != zlib.crc32(data[:4092]), "R4", "superblock_crc does not match")
    refuse_if(sb.feature_incompat & ~(PLACEHOLDER_BIT | LAYER_ACTIVATIONS_BIT | COPIES_BIT), "R5", f"feature_incompat is {sb.feature_incompat:#x}")
    refuse_if(b & (b - 1) or not BLOCK_BYTES_MIN <= b <= BLOCK_BYTES_MAX, "R6", f"block_bytes is {b}")
    refuse_if(sb.file_bytes != length or length > FILE_BYTES_MAX, "R7", f"file_bytes {sb.file_bytes}, length {length}")
    refuse_if(sb.index_bytes > min(length, INDEX_BYTES_MAX) or sb.index_bytes % b, "R8", f"index is {sb.index_bytes}")
    refuse_if(sb.section_count > SECTIONS_MAX, "R9", f"section_count is {sb.section_count}")
    refuse_if(any(sb.reserved), "R10", "a reserved byte of the superblock is not zero")
    return sb

# 5 Section table, with the places of 3 Layout
ENTRY = struct.Struct("<IIIIQQ16s")
Section = namedtuple("Section", "kind layer placement section_crc offset bytes reserved")
FIRST_BULK_KIND, WHOLE_PACK = 256, 0xFFFFFFFF
KIND = {1: "model_shape", 2: "provenance", 3: "link_index", 4: "side_data", 5: "bundle_checksums", 6: "predictor",
        256: "bundle_region", 257: "resident"}
MODEL_SHAPE, PROVENANCE, LINK_INDEX, SIDE_DATA, BUNDLE_CHECKSUMS, PREDICTOR, BUNDLE_REGION, RESIDENT = KIND  # the codes

def name_of(s):
    kind = KIND.get(s.kind, f"kind {s.kind}")
    return kind if s.layer == WHOLE_PACK else f"{kind} of layer {s.layer}, placement {s.placement}"

def read_section_table(file, sb):
    """All entries, each in the place where it has to be (R11 to R18)."""
    table_end = end = SUPERBLOCK_BYTES + 48 * sb.section_count
    refuse_if(end > sb.index_bytes, "R11", "the section table does not end within index_bytes")
    table = read_at(file, SUPERBLOCK_BYTES, 48 * sb.section_count)
    refuse_if(sb.section_table_crc != zlib.crc32(table), "R12", "section_table_crc does not match")
    sections = []
    for s in map(Section._make, ENTRY.iter_unpack(table)):
        refuse_if(sections and s[:3] <= sections[-1][:3], "R13", f"{name_of(s)} is not in ascending order")
        refuse_if(any(s.reserved), "R14", f"a reserved byte of the entry of {name_of(s)} is not zero")
        offset = round_up(end, sb.block_bytes)
        refuse_if(s.offset != offset, "R15", f"{name_of(s)} is at {s.offset}, not at {offset}")
        end = offset + s.bytes
        limit = sb.index_bytes if s.kind < FIRST_BULK_KIND else sb.file_bytes
        refuse_if(end > limit, "R16", f"{name_of(s)} ends at {end}, beyond {limit}")
        sections.append(s)
    first_bulk = next((s.offset for s in sections if s.kind >= FIRST_BULK_KIND), None)
    refuse_if(sb.index_bytes != first_bulk, "R17", "index_bytes is not the offset of the first bulk section")
    refuse_if(sb.file_bytes != round_up(end, sb.block_bytes), "R18", "file_bytes is not the rounded-up end")
    check_zeros(file, table_end, sections[0].offset, "R19", "the section table")
    for s, next_section in zip(sections, sections[1:]):  # the last one is bulk, by R17
        if s.kind < FIRST_BULK_KIND:
            check_zeros(file, s.offset + s.bytes, next_section.offset, "R19", name_of(s))
            refuse_if(s.section_crc != crcs_of(file, s)[0], "R20", f"section_crc of {name_of(s)} does not match")
    return sections

def check_kinds(sections, found, layers):
    """5.1: for whom a section may be, and which ones there have to be (R21, R22)."""
    for s in sections:
        right = s.layer == WHOLE_PACK if s.kind in (MODEL_SHAPE, PROVENANCE, RESIDENT) else s.layer < layers
        rule = "R48" if s.kind == PREDICTOR else "R21"
        refuse_if(s.kind in KIND and not right, rule, f"{name_of(s)} has layer {s.layer} of {layers}")
        if s.kind in (MODEL_SHAPE, PROVENANCE, SIDE_DATA, RESIDENT):
            refuse_if(s.placement != 0, "R21", f"{name_of(s)} has placement {s.placement}")
    for kind, layer in itertools.product((LINK_INDEX, BUNDLE_CHECKSUMS, BUNDLE_REGION), range(layers)):
        refuse_if((kind, layer) not in found, "R22", f"there is no {KIND[kind]} of layer {layer}")

# 6 Model shape
SHAPE = struct.Struct("<10I24s")
Shape = namedtuple("Shape", "layers neurons hidden parts activation activation_threshold_bits dtype part_bytes"
                   " bundle_stride slots reserved")
DTYPES = {1: "f32", 2: "f16", 3: "bf16", 4: "q8_0", 5: "q4_0", 255: "placeholder"}
BYTES_OF_32_WEIGHTS = {1: 128, 2: 64, 3: 64, 4: 34, 5: 18, 255: 0}  # 10.1
ACTIVATIONS = {1: "relu", 2: "fatrelu", 3: "relu2", 4: "silu", 5: "gelu", 6: "drelu", 7: "gelu_tanh",
               8: "gaussian_topk"}
FATRELU, GAUSSIAN_TOPK, PLACEHOLDER = 2, 8, 255
PLACEHOLDER_BIT, LAYER_ACTIVATIONS_BIT, COPIES_BIT = 1, 2, 4  # 12 Feature bits

def is_threshold(bits, activation):
    if activation == GAUSSIAN_TOPK:  # any finite f32
        return bits & 0x7F800000 != 0x7F800000
    # the bits of +0 up to the largest finite f32, or of -0
    return bits < 0x7F800000 or bits == 0x80000000 if activation == FATRELU else bits == 0

def read_model_shape(file, section, feature_incompat):
    refuse_if(section.bytes != 64, "R23", f"model_shape has {section.bytes} bytes")
    shape = Shape._make(SHAPE.unpack(read_at(file, section.offset, 64)))
    layers, neurons, hidden, parts, activation, threshold, dtype, part_bytes, stride, slots, reserved = shape
    in_limits = 1 <= layers <= LAYERS_MAX and 1 <= neurons <= NEURONS_MAX and layers * neurons <= BUNDLES_MAX
    refuse_if(not in_limits, "R24", f"{layers} layers of {neurons} neurons")
    refuse_if(not 1 <= hidden <= HIDDEN_MAX or hidden % HIDDEN_MULTIPLE, "R24", f"hidden is {hidden}")
    right = neurons <= slots <= NEURONS_MAX and layers * slots <= BUNDLES_MAX if feature_incompat & COPIES_BIT else slots == 0
    refuse_if(not right, "R24", f"slots is {slots}")
    refuse_if(parts not in (2, 3), "R25", f"parts is {parts}")
    refuse_if(activation not in ACTIVATIONS, "R26", f"activation is {activation}")
    right = is_threshold(threshold, activation)
    refuse_if(not right, "R26", f"activation_threshold is {threshold:#x} with {ACTIVATIONS[activation]}")
    refuse_if(dtype not in DTYPES, "R27", f"dtype is {dtype}")
    bit_0 = feature_incompat & PLACEHOLDER_BIT
    refuse_if((dtype == PLACEHOLDER) != bit_0, "R28", f"dtype is {DTYPES[dtype]}, incompatible bit 0 is {bit_0}")
    refuse_if(part_bytes != hidden // 32 * BYTES_OF_32_WEIGHTS[dtype], "R29", f"part_bytes is {part_bytes}")
    right = 1 <= stride <= BUNDLE_STRIDE_MAX and (dtype == PLACEHOLDER or stride == parts * part_bytes)
    refuse_if(not right, "R30", f"bundle_stride is {stride}")
    refuse_if(any(reserved), "R31", "a reserved byte of the model shape is not zero")
    return shape

# 7 Provenance
def read_provenance(file, section):
    refuse_if(not 1 <= section.bytes <= PROVENANCE_BYTES_MAX, "R32", f"provenance has {section.bytes} bytes")
    try:
        text = read_at(file, section.offset, section.bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("R33: provenance is not UTF-8") from None
    refuse_if(not text.endswith("\n"), "R33", "provenance does not end with LF")
    values, last = {}, ""  # no key is below ""
    for number, line in enumerate(text[:-1].split("\n"), 1):
        key, equals, value = line.partition("=")
        refuse_if(not equals or not re.fullmatch("[a-z0-9_.]+", key), "R34", f"provenance line {number}: not key=value")
        refuse_if(re.search("[\x00-\x1f\x7f-\x9f]", value), "R34", f"provenance line {number}: a control character")
        refuse_if(key <= last, "R35", f"provenance line {number}: the keys do not ascend")
        values[key], last = value, key
    refuse_if(not {"order", "tool"} <= values.keys(), "R36", "provenance has no key order or no key tool")
    return values

# 8 Link index
def walk(neuron, slot_of_neuron, next_slot):
    """8.1: the slots of a neuron. Strictly ascending, or it is cut off."""
    slots = [slot_of_neuron[neuron]]
    while slots[-1] < len(next_slot) and next_slot[slots[-1]] > slots[-1]:
        slots.append(next_slot[slots[-1]])
    return slots

def read_orders(file, section):
    """The arrays of a link index that say where bundles are: slot_of_neuron, neuron_of_slot, next_slot (empty without copies)."""
    n, k, s = struct.unpack("<II8xI", read_at(file, section.offset, 20))
    at, s = section.offset + 32, s or n
    with_copies = section.bytes != 36 + 12 * n + 4 * k
    return (read_u32s(file, at, n), read_u32s(file, at + 4 * n, s),
            read_u32s(file, at + 4 * n + 8 * s + 4 * (k + 1), s if with_copies else 0))

def read_link_index(file, section, shape, copies):  # gives back what is printed of it
    name = name_of(section)
    refuse_if(section.bytes < 32, "R37", f"{name} has {section.bytes} bytes")
    n, k, tokens, s, reserved = struct.unpack("<IIQI12s", read_at(file, section.offset, 32))
    length = 36 + 4 * n + 12 * s + 4 * k if s else 36 + 12 * n + 4 * k
    refuse_if(section.bytes != length, "R37", f"{name}: {section.bytes} bytes, {n} neurons, {k} links, slots {s}")
    refuse_if(n != shape.neurons, "R38", f"{name} has {n} neurons, not {shape.neurons}")
    right = n <= s <= shape.slots if copies else s == 0
    refuse_if(not right, "R38", f"{name}: slots is {s}")
    refuse_if(any(reserved), "R39", f"{name}: a reserved byte is not zero")
    s = s or n
    slot_of_neuron = read_u32s(file, section.offset + 32, n)
    neuron_of_slot = read_u32s(file, section.offset + 32 + 4 * n, s)
    link_begin = read_u32s(file, section.offset + 32 + 4 * n + 4 * s, k + 1)
    active_count = read_u32s(file, section.offset + 36 + 4 * n + 4 * s + 4 * k, s)
    if copies:
        next_slot = read_u32s(file, section.offset + 36 + 4 * n + 8 * s + 4 * k, s)
        visited = 0
        for neuron in range(n):
            slots = walk(neuron, slot_of_neuron, next_slot)
            right = all(t < s and neuron_of_slot[t] == neuron for t in slots) and next_slot[slots[-1]] == 0
            refuse_if(not right, "R40", f"{name}: the walk of neuron {neuron}")
            visited += len(slots)
        refuse_if(visited != s, "R40", f"{name}: {visited} of {s} slots are visited")
    else:
        inverse = all(neuron < n and slot_of_neuron[neuron] == t for t, neuron in enumerate(neuron_of_slot))
        refuse_if(not inverse, "R40", f"{name}: not permutations that are each other's inverse")
    ascending = all(link_begin[j] < link_begin[j + 1] for j in range(k))
    refuse_if(link_begin[0] != 0 or link_begin[k] != s or not ascending, "R41", f"{name}: link_begin makes no links")
    refuse_if(max(active_count) > tokens, "R42", f"{name}: an active_count is above profile_tokens")
    lengths = array.array("I", (link_begin[j + 1] - link_begin[j] for j in range(k)))
    return {"slots": s, "links": k, "longest_link": max(lengths), "single_links": lengths.count(1),
            "model_order_pairs": sum(neuron_of_slot[t] == neuron_of_slot[t - 1] + 1 for t in range(1, s)),
            "profile_tokens": tokens, "profile_active": sum(active_count[t] for t in slot_of_neuron),
            "never_active": sum(active_count[t] == 0 for t in slot_of_neuron)}

# 9.1 Side data
def read_side_data(file, section, shape, by_layer):  # gives back which arrays are there, and the activation
    name = name_of(section)
    refuse_if(section.bytes < 16, "R45", f"{name} has {section.bytes} bytes")
    arrays, eps_bits, activation, threshold = struct.unpack("<4I", read_at(file, section.offset, 16))
    neuron_bias, output_bias, up_bias, down_norm = (bool(arrays >> bit & 1) for bit in range(4))
    refuse_if(arrays & ~15 or (up_bias and shape.parts != 3), "R43", f"{name}: arrays is {arrays:#x}")
    eps, = struct.unpack("<f", struct.pack("<I", eps_bits))
    right = 0 <= eps < math.inf if down_norm else eps_bits == 0
    refuse_if(not right, "R44", f"{name}: norm_eps is {eps}")
    right = activation == 0 or by_layer and activation in ACTIVATIONS
    refuse_if(not right, "R44", f"{name}: activation is {activation}")
    refuse_if(not is_threshold(threshold, activation), "R44", f"{name}: activation_threshold is {threshold:#x}")
    length = 16 + 4 * shape.neurons * (neuron_bias + up_bias + down_norm) + 4 * shape.hidden * output_bias
    refuse_if(section.bytes != length, "R45", f"{name} has {section.bytes} bytes, not {length}")
    own = (activation, threshold) if activation else (shape.activation, shape.activation_threshold_bits)
    return [neuron_bias, output_bias, up_bias, down_norm], own

# 9.2 Predictors
PREDICTOR_HEADER, POINT = struct.Struct("<8I32s"), struct.Struct("<5f12s")
Predictor = namedtuple("Predictor", "kind numbers neurons hidden rank flags points offsets reserved")
PREDICTOR_KINDS = {1: "low_rank", 2: "rows"}
NUMBERS = {1: "f32", 2: "f16", 4: "q8_0", 17: "bits:1", 18: "bits:2", 20: "bits:4", 24: "bits:8"}
BYTES_OF_32_NUMBERS = {1: 128, 2: 64, 4: 34, 17: 6, 18: 10, 20: 18, 24: 34}
RELU_BETWEEN, REDUCE_BIAS, STRENGTH_SCALES, POINTS_MAX = 1, 2, 4, 64

def read_predictor(file, section, shape):  # gives back what is printed of it, nothing of a kind to come
    name = f"predictor of layer {section.layer}, horizon {section.placement}"
    refuse_if(section.placement > section.layer, "R48", f"{name}: there is no such layer before it")
    refuse_if(shape.dtype == PLACEHOLDER, "R48", f"{name}: of placeholders")
    refuse_if(section.bytes < 64, "R49", f"{name} has {section.bytes} bytes")
    p = Predictor._make(PREDICTOR_HEADER.unpack(read_at(file, section.offset, 64)))
    if p.kind not in PREDICTOR_KINDS or p.numbers not in NUMBERS or p.flags & ~(RELU_BETWEEN | REDUCE_BIAS | STRENGTH_SCALES):
        return None
    same = (p.neurons, p.hidden) == (shape.neurons, shape.hidden)
    refuse_if(not same, "R51", f"{name}: {p.neurons} neurons, hidden {p.hidden}")
    low_rank = PREDICTOR_KINDS[p.kind] == "low_rank"
    if low_rank:
        right = 1 <= p.rank <= HIDDEN_MAX and p.rank % HIDDEN_MULTIPLE == 0
    else:
        right = p.rank == p.flags & ~STRENGTH_SCALES == 0
    refuse_if(not right, "R51", f"{name}: rank {p.rank}, flags {p.flags:#x}")
    right = 1 <= p.points <= POINTS_MAX and p.offsets in (1, p.points)
    refuse_if(not right, "R51", f"{name}: {p.points} points, {p.offsets} offsets")
    refuse_if(any(p.reserved), "R50", f"{name}: a reserved byte is not zero")
    bias = (4 * p.rank if p.flags & REDUCE_BIAS else 0) + (2 * p.neurons if p.flags & STRENGTH_SCALES else 0)
    row = {columns: columns // 32 * BYTES_OF_32_NUMBERS[p.numbers] for columns in (p.hidden, p.rank)}
    matrices = p.rank * row[p.hidden] + p.neurons * row[p.rank if low_rank else p.hidden] + bias
    length = 64 + 32 * p.points + 2 * p.neurons * p.offsets + matrices
    refuse_if(section.bytes != length, "R49", f"{name} has {section.bytes} bytes, not {length}")
    points, last = [], -math.inf
    for *values, reserved in POINT.iter_unpack(read_at(file, section.offset + 64, 32 * p.points)):
        quality, threshold, recall, reads, kept = values
        right = all(0 <= share <= 1 for share in (quality, recall, kept)) and quality > last
        right = right and math.isfinite(threshold) and 0 <= reads < math.inf
        refuse_if(not right, "R52", f"{name}: operating point {values}")
        refuse_if(any(reserved), "R50", f"{name}: a reserved byte of an operating point is not zero")
        points.append(dict(zip(("quality", "threshold", "recall", "reads_per_active", "share_kept"), values)))
        last = quality
    return {"layer": section.layer, "horizon": section.placement, "kind": PREDICTOR_KINDS[p.kind],
            "numbers": NUMBERS[p.numbers], "rank": p.rank, "relu_between": bool(p.flags & RELU_BETWEEN),
            "reduce_bias": bool(p.flags & REDUCE_BIAS),
            "strength_scales": bool(p.flags & STRENGTH_SCALES), "thresholds": "layer" if p.offsets == 1 else "neuron",
            "bytes": matrices + 2 * p.neurons, "points": points}

# 11 Checksums: zlib.crc32 is the CRC-32 of 11.1
def crcs_of(file, section, step=1 << 20):
    """The CRC-32 of a section, read in steps of so many bytes, and the CRC-32 of each step."""
    crc, crc_of_step = 0, array.array("I")
    for at in range(0, section.bytes, step):
        data = read_at(file, section.offset + at, min(step, section.bytes - at))
        crc = zlib.crc32(data, crc)
        crc_of_step.append(zlib.crc32(data))
    return crc, crc_of_step

# 13 Spare bytes: padding
def check_zeros(file, begin, end, rule, after):
    refuse_if(any(read_at(file, begin, end - begin)), rule, f"a byte of the padding after {after} is not zero")

# 14 Limits
SUPERBLOCK_BYTES, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX, SECTIONS_MAX = 4096, 512, 65536, 1048576
LAYERS_MAX, NEURONS_MAX, BUNDLES_MAX, HIDDEN_MAX, HIDDEN_MULTIPLE = 65536, 16777216, 2147483648, 1048576, 32
BUNDLE_STRIDE_MAX, PROVENANCE_BYTES_MAX, INDEX_BYTES_MAX, FILE_BYTES_MAX = 67108864, 1048576, 4294967296, 1 << 62

# 5.2 More than one placement
def is_usable(file, every, layer, placement, shape):
    one, other = ([every.get((kind, layer, p)) for kind in (LINK_INDEX, BUNDLE_CHECKSUMS, BUNDLE_REGION)]
                  for p in (0, placement))
    if None in other:
        return False
    n, (index, sums, region) = shape.neurons, other
    try:
        read_link_index(file, index, shape, shape.slots > 0)
    except Refused:
        return False
    slots = len(read_orders(file, index)[1])
    if sums.bytes != 4 * slots or region.bytes != slots * shape.bundle_stride:
        return False
    every = [(read_orders(file, i), read_u32s(file, c.offset, c.bytes // 4)) for i, c, _ in (one, other)]
    return all(len({crc[t] for (slots, _, nexts), crc in every for t in walk(neuron, slots, nexts)}) == 1 for neuron in range(n))

# 15 What a reader must reject
def read_pack(file, index_only):
    sb = read_superblock(file)
    sections = read_section_table(file, sb)
    found = {(s.kind, s.layer): s for s in sections if s.placement == 0}
    for kind in (MODEL_SHAPE, PROVENANCE):
        refuse_if((kind, WHOLE_PACK) not in found, "R22", f"there is no {KIND[kind]} of the whole pack")
    shape = read_model_shape(file, found[MODEL_SHAPE, WHOLE_PACK], sb.feature_incompat)
    check_kinds(sections, found, shape.layers)
    provenance = read_provenance(file, found[PROVENANCE, WHOLE_PACK])
    layers = []
    for layer in range(shape.layers):
        checksums, region = found[BUNDLE_CHECKSUMS, layer], found[BUNDLE_REGION, layer]
        link_index = read_link_index(file, found[LINK_INDEX, layer], shape, shape.slots > 0)
        slot_of_neuron, neuron_of_slot, next_slot = read_orders(file, found[LINK_INDEX, layer])
        slots = len(neuron_of_slot)
        refuse_if(checksums.bytes != 4 * slots, "R46", f"{name_of(checksums)} has {checksums.bytes}")
        refuse_if(region.bytes != slots * shape.bundle_stride, "R47", f"{name_of(region)} has {region.bytes}")
        crcs = read_u32s(file, checksums.offset, slots) if next_slot else ()
        for neuron in range(shape.neurons if next_slot else 0):
            unlike = len({crcs[t] for t in walk(neuron, slot_of_neuron, next_slot)}) > 1
            refuse_if(unlike, "R53", f"{name_of(checksums)}: the slots of neuron {neuron} differ")
        side_data = found.get((SIDE_DATA, layer))
        by_layer = sb.feature_incompat & LAYER_ACTIVATIONS_BIT
        arrays, own = [False] * 4, (shape.activation, shape.activation_threshold_bits)
        if side_data:
            arrays, own = read_side_data(file, side_data, shape, by_layer)
        layers.append({"layer": layer, **link_index,
                       "biases": arrays[:2], "up_bias": arrays[2], "down_norm": arrays[3], "activation": ACTIVATIONS[own[0]],
                       "activation_threshold_bits": own[1], "region_offset": region.offset})
    predictors = [read_predictor(file, s, shape) for s in sections if s.kind == PREDICTOR]
    every = {(s.kind, s.layer, s.placement): s for s in sections}
    placements = 1
    while all(is_usable(file, every, layer, placements, shape) for layer in range(shape.layers)):
        placements += 1
    if not index_only:
        verify(file, sb, sections, every, shape, placements)
    named = shape._replace(activation=ACTIVATIONS[shape.activation], dtype=DTYPES[shape.dtype], slots=shape.slots or shape.neurons)
    return {"version": [sb.version_major, sb.version_minor], "block_bytes": sb.block_bytes,
            **{k: getattr(sb, k) for k in ("feature_compat", "feature_incompat", "file_bytes", "index_bytes")},
            "shape": {key: value for key, value in named._asdict().items() if key != "reserved"},
            "sections": [{"kind": KIND.get(s.kind, str(s.kind)), "layer": None if s.layer == WHOLE_PACK else s.layer,
                          "placement": s.placement, "offset": s.offset, "bytes": s.bytes,
                          "section_crc": f"{s.section_crc:08x}"} for s in sections],
            "placements": placements, "layers": layers, "predictors": [p for p in predictors if p],
            "provenance": provenance}

# 17 Full verification
def verify(file, sb, sections, every, shape, placements):
    for s, next_offset in zip(sections, [t.offset for t in sections[1:]] + [sb.file_bytes]):
        if s.kind >= FIRST_BULK_KIND:
            of_bundles = s.kind == BUNDLE_REGION and s.placement < placements
            crc, bundle_crcs = crcs_of(file, s, shape.bundle_stride if of_bundles else 1 << 20)
            refuse_if(s.section_crc != crc, "V1", f"section_crc of {name_of(s)} does not match")
            if of_bundles:
                checksums = every[BUNDLE_CHECKSUMS, s.layer, s.placement]
                expected = read_u32s(file, checksums.offset, checksums.bytes // 4)
                refuse_if(bundle_crcs != expected, "V2", f"a bundle of {name_of(s)} does not match its checksum")
            check_zeros(file, s.offset + s.bytes, next_offset, "V3", name_of(s))

def main(arguments):
    paths = [a for a in arguments if a != "--index-only"]
    if len(paths) != 1 or paths[0].startswith("-"):
        print("usage: read_lnp.py PACK [--index-only]", file=sys.stderr)
        return 2
    try:
        with open(paths[0], "rb", buffering=1 << 20) as file:
            print(json.dumps(read_pack(file, "--index-only" in arguments), indent=2), flush=True)
    except Refused as refused:
        return f"{paths[0]}: {refused}"
    except (OSError, MemoryError) as error:  # no rule: something else stands in the way
        return f"{paths[0]}: not read: {error!r}"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # a text goes to stderr, with status 1

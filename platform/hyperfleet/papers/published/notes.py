"""Notes on printed cells: misprints, gaps, and how they can be derived."""

NOT_LEGIBLE = "not legible in our copy"

TGIF_NOTE = (
    "TGIF's C-Param in CDC-MMPG Table 2 (18.7M and 46.5M) repeats the MSVD-QA row of Table 1; with 1541 "
    "classes the generator has 28.8M parameters, and the full method about 56.6M."
)
MC_DELAY_NOTE = (
    "The 5.70ms of multiple choice is TGIF's delay; its 193 generated parameters (0.754 KiB) need 0.0074 ms."
)
MC_CHANCE_NOTE = "3.58 % is below the 20 % of guessing among five candidates."
F_LINEAR_TGIF_NOTE = "F-linear on TGIF is 27.3 in CDC-MMPG Table 2 and 2.73 in StableSynthNet Table 1."
DOWNLOAD_ONLY_NOTE = (
    "The papers' time delay is the download alone: size / rate, without upload, round trip, encoder or "
    "generator time."
)
SIZE_NOTE = (
    "The printed sizes differ from 97 x C float32 values by at most 0.24 KiB (0.04 %); no integer C gives "
    "the printed digits. MSVD-QA at 100MB/s is printed 3.71 ms; the exact size gives 3.70 ms."
)
CDC_DELAY_TABLE_NOTE = (
    f"The cells of CDC-MMPG's own delay table (Table 6) are {NOT_LEGIBLE}; StableSynthNet prints the table "
    "in its Table 5, and the numbers in CDC-MMPG's text agree with it: the sizes 0.75KB, 379.4KB and "
    "583.8KB, and at 100MB/s the delays 0.007ms and 5.70ms."
)

DATASET_NAMES = (
    "CDC-MMPG Table 1 has the column headers VSRVTT-QA and MVSD-QA, StableSynthNet Table 1 has MVSD-QA; read "
    "MSRVTT-QA and MSVD-QA. TGIF means TGIF-QA FrameQA."
)
LEARNABLE_MEANS_TOTAL = (
    "D-Param is called the number of learnable parameters but counts the full device model: F-linear, which "
    "trains the classifier alone, has the same number as Fine-tuning."
)
FULL_METHOD_PARAMS = (
    "The full method's C-Param exceeds F-hyper's by 27.8M, in multiple choice by 20.3M; the paper does not "
    "name those networks, and hundreds of designs fit."
)
COUNTS_NOT_PRINTED = (
    "StableSynthNet states that it counts learnable parameters (section 4.3), but no table prints them."
)
MINUTE_OF_FINE_TUNING = (
    "Neither paper says how the 60000ms of F-linear and Fine-tuning were obtained (CDC-MMPG prints them as "
    "a value, StableSynthNet as a lower bound)."
)
MULTIPLE_CHOICE_TITLE = (
    "The column is headed MSRVTT-QA, which has no candidates; the task is multiple choice over captions "
    "(MSRVTT-MC)."
)
SEPARATE_TARGETS = (
    "The papers' baselines agree in every cell but F-linear on TGIF; their full methods are separate "
    "targets, and StableSynthNet is the better one on TGIF and in TR@1 only."
)
FIVE_FRAME_CELL = (
    "The accuracy equals that of Fine-tuning with five frames in Table 4, but the method uses three."
)

RECALL_RANKS = (
    "The text sets K to 1, 2 and 5, for both tasks; the tables print K = 1, 5 and 10, for retrieval alone."
)
RETRIEVAL_PROTOCOL = (
    "The protocol is not described beyond the clips of the splits (6,513, 497 and 2,990), and recalls of 2 "
    "to 7 % at rank 1 are far below the usual ones; none of our numbers is comparable."
)
CDC_RETRIEVAL = "The full method is best except in TR@1, where Fine-tuning has 6.2 and it has 5.6."
STABLE_RETRIEVAL = "The full method is best except in TR@5, where Fine-tuning has 20.7 and it has 20.4."

FRAMES_ARE_FINE_TUNING = (
    "The rows are Fine-tuning (three frames are its row of Table 1), trained on one A100 with a batch of 256."
)
FRAMES_PEAK = (
    "The text says that accuracy peaks at three or four frames; on MSRVTT-QA and TGIF it is best at five."
)
SAME_IN_BOTH_PAPERS = "Both papers print this table with the same cells."

LATENCY_AGAINST_PAYLOAD = (
    "The latencies do not follow the payload: DUET is slower on MSVD than on MSRVTT, whose head is larger, "
    "and StableSynthNet is fastest on TGIF, whose head is the largest. The paper states neither the parts of "
    "a latency nor the network; its time delays in Table 1 are milliseconds."
)
FLOPS_NOT_ALIKE = (
    "28.2M fits a full generator in multiply-accumulates (28,225,248 for a GRU of 96 units over five frames "
    "and a linear layer to 193 x 1501 values); 0.62M cannot hold one, and reading one frame instead of five "
    "saves less than 1M. The two figures do not count the same thing."
)

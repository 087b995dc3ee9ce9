# The same tables as tests/studies/test_other_software.py, by R: Rscript r_cases.R FOLDER
#
# Reads FOLDER/<kind>-<case>.csv, writes FOLDER/found.csv: case, name, value. A case whose package
# is missing is left out, and Python skips it.

folder <- commandArgs(trailingOnly = TRUE)[1]
found <- file(file.path(folder, "found.csv"), "w")
writeLines("case,name,value", found)

has <- function(package) {
  suppressWarnings(suppressMessages(require(package, character.only = TRUE, quietly = TRUE)))
}

say <- function(case, ...) {
  values <- list(...)
  for (name in names(values)) {
    writeLines(sprintf("%s,%s,%.17g", case, name, as.numeric(values[[name]])), found)
  }
}

tables <- function(kind) {
  paths <- Sys.glob(file.path(folder, paste0(kind, "-*.csv")))
  structure(lapply(paths, read.csv), names = sub("\\.csv$", "", basename(paths)))
}

# Base R: Clopper and Pearson, Wilson without and with continuity correction.
for (case in names(all <- tables("counts"))) {
  x <- all[[case]]$x
  n <- all[[case]]$n
  for (how in c("exact", "wilson", "wilson_corrected")) {
    limits <- if (how == "exact") binom.test(x, n)$conf.int else
      suppressWarnings(prop.test(x, n, correct = how == "wilson_corrected"))$conf.int
    do.call(say, c(case, setNames(as.list(limits), paste0(how, c("_low", "_high")))))
  }
  say(case, p = binom.test(x, n)$p.value)
}

if (has("binom")) for (case in names(all <- tables("counts"))) {
  limits <- binom.confint(all[[case]]$x, all[[case]]$n,
                          methods = c("exact", "wilson", "agresti-coull", "asymptotic"))
  for (row in seq_len(nrow(limits))) {
    how <- paste0("binom_", limits$method[row])
    do.call(say, c(case, setNames(list(limits$lower[row], limits$upper[row]),
                                  paste0(how, c("_low", "_high")))))
  }
}

if (has("pROC")) for (case in names(all <- tables("scores"))) {
  d <- all[[case]]
  one <- roc(d$is_signal, d$first, levels = 0:1, direction = "<", quiet = TRUE)
  two <- roc(d$is_signal, d$second, levels = 0:1, direction = "<", quiet = TRUE)
  limits <- ci.auc(one, method = "delong")
  paired <- roc.test(one, two, method = "delong", paired = TRUE)
  unpaired <- roc.test(one, two, method = "delong", paired = FALSE)
  say(case,
      auc = auc(one), variance = var(one, method = "delong"), low = limits[1], high = limits[3],
      covariance = cov(one, two, method = "delong"),
      paired_z = paired$statistic, paired_p = paired$p.value,
      unpaired_df = unpaired$parameter, unpaired_p = unpaired$p.value,
      power = power.roc.test(one)$power, paired_power = power.roc.test(one, two)$power)
}

if (has("lme4")) {
  control <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-11,
                          optCtrl = list(maxfun = 1e5, rhoend = 1e-9))
  fit <- function(case, formula, data, nodes, suffix = "") {
    m <- suppressMessages(suppressWarnings(
      glmer(formula, data, binomial, control = control, nAGQ = nodes)))
    deviations <- sapply(VarCorr(m), function(v) sqrt(v[1, 1]))
    values <- c(as.list(fixef(m)), as.list(sqrt(diag(as.matrix(vcov(m))))), as.list(deviations),
                as.numeric(logLik(m)))
    names(values) <- c("intercept", "slope", "intercept_error", "slope_error",
                       paste0("sd_", names(deviations)), "log_likelihood")
    do.call(say, c(paste0(case, suffix), values))
  }
  for (case in names(all <- tables("readers"))) for (nodes in c(1, 25)) {
    fit(case, correct ~ x + (1 | reader), all[[case]], nodes, paste0("-", nodes))
  }
  for (case in names(all <- tables("crossed"))) {
    fit(case, correct ~ x + (1 | reader) + (1 | case), all[[case]], 1)
  }
}
close(found)

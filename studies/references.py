"""The literature that the report's sentences cite, each as [author year]."""

import re
from collections.abc import Iterable

REFERENCES = {
    "Brier 1950": "Brier GW. Verification of forecasts expressed in terms of probability. Mon "
    "Weather Rev 1950;78:1–3.",
    "DeLong 1988": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more "
    "correlated receiver operating characteristic curves: a nonparametric approach. Biometrics "
    "1988;44:837–845.",
    "Dorfman 1969": "Dorfman DD, Alf E. Maximum-likelihood estimation of parameters of "
    "signal-detection theory and determination of confidence intervals: rating-method data. J Math "
    "Psychol 1969;6:487–496.",
    "Fieller 1954": "Fieller EC. Some problems in interval estimation. J R Stat Soc B "
    "1954;16:175–185.",
    "Fleiss 1971": "Fleiss JL. Measuring nominal scale agreement among many raters. Psychol Bull "
    "1971;76:378–382.",
    "Fleming 2014": "Fleming SM, Lau HC. How to measure metacognition. Front Hum Neurosci "
    "2014;8:443.",
    "Gallas 2006": "Gallas BD. One-shot estimate of MRMC variance: AUC. Acad Radiol "
    "2006;13:353–362.",
    "Gallas 2008": "Gallas BD, Brown DG. Reader studies for validation of CAD systems. Neural Netw "
    "2008;21:387–397.",
    "Gourevitch 1967": "Gourevitch V, Galanter E. A significance test for one parameter "
    "isosensitivity functions. Psychometrika 1967;32:25–33.",
    "Gwet 2008": "Gwet KL. Computing inter-rater reliability and its variance in the presence of "
    "high agreement. Br J Math Stat Psychol 2008;61:29–48.",
    "Hartung 2001": "Hartung J, Knapp G. On tests of the overall treatment effect in meta-analysis "
    "with normally distributed responses. Stat Med 2001;20:1771–1782.",
    "Hautus 1995": "Hautus MJ. Corrections for extreme proportions and their biasing effects on "
    "estimated values of d′. Behav Res Methods Instrum Comput 1995;27:46–51.",
    "Hesterberg 2015": "Hesterberg TC. What teachers should know about the bootstrap: resampling "
    "in the undergraduate statistics curriculum. Am Stat 2015;69:371–386.",
    "Hillis 2007": "Hillis SL. A comparison of denominator degrees of freedom methods for multiple "
    "observer ROC analysis. Stat Med 2007;26:596–619.",
    "Holm 1979": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat "
    "1979;6:65–70.",
    "Jennison 1989": "Jennison C, Turnbull BW. Interim analyses: the repeated confidence interval "
    "approach. J R Stat Soc B 1989;51:305–361.",
    "Krippendorff 2011": "Krippendorff K. Computing Krippendorff’s alpha-reliability. University "
    "of Pennsylvania, 2011.",
    "Lan 1983": "Lan KKG, DeMets DL. Discrete sequential boundaries for clinical trials. "
    "Biometrika 1983;70:659–663.",
    "Lichtenstein 1982": "Lichtenstein S, Fischhoff B, Phillips LD. Calibration of probabilities: "
    "the state of the art to 1980. In: Kahneman D, Slovic P, Tversky A, eds. Judgment under "
    "uncertainty. Cambridge University Press, 1982:306–334.",
    "Maniscalco 2012": "Maniscalco B, Lau H. A signal detection theoretic approach for estimating "
    "metacognitive sensitivity from confidence ratings. Conscious Cogn 2012;21:422–430.",
    "Morris 1983": "Morris CN. Parametric empirical Bayes inference: theory and applications. J Am "
    "Stat Assoc 1983;78:47–55.",
    "Murphy 1973": "Murphy AH. A new vector partition of the probability score. J Appl Meteorol "
    "1973;12:595–600.",
    "Naeini 2015": "Naeini MP, Cooper GF, Hauskrecht M. Obtaining well calibrated probabilities "
    "using Bayesian binning. Proc AAAI Conf Artif Intell 2015;29:2901–2907.",
    "Obuchowski 1995": "Obuchowski NA, Rockette HE. Hypothesis testing of diagnostic accuracy for "
    "multiple readers and multiple tests: an ANOVA approach with dependent observations. Commun "
    "Stat Simul Comput 1995;24:285–308.",
    "Owen 2007": "Owen AB. The pigeonhole bootstrap. Ann Appl Stat 2007;1:386–411.",
    "Rao 1992": "Rao JNK, Scott AJ. A simple method for the analysis of clustered binary data. "
    "Biometrics 1992;48:577–585.",
    "Schuirmann 1987": "Schuirmann DJ. A comparison of the two one-sided tests procedure and the "
    "power approach for assessing the equivalence of average bioavailability. J Pharmacokinet "
    "Biopharm 1987;15:657–680.",
    "Schütt 2016": "Schütt HH, Harmeling S, Macke JH, Wichmann FA. Painfree and accurate Bayesian "
    "estimation of psychometric functions for (potentially) overdispersed data. Vision Res "
    "2016;122:105–123.",
    "Wilson 1927": "Wilson EB. Probable inference, the law of succession, and statistical "
    "inference. J Am Stat Assoc 1927;22:209–212.",
}


def cited(sentences: Iterable[str]) -> tuple[str, ...]:
    """The references of `[author year]` in the sentences, in the order in which they first stand.

    Raises:
        KeyError: for one that is not in the list.
    """
    keys = re.findall(r"\[([^\]\d]+ \d{4})\]", " ".join(sentences))
    return tuple(REFERENCES[key] for key in dict.fromkeys(keys))
